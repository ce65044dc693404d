"""The documentation of the API: Swagger UI."""
