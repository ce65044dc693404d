"""The OpenAPI 3.1 document: requests and responses of every route, drawn from the types that the code uses.

    operations        the type of a table's entries
    native            the operations of the server's own routes
    dialects, *.json  the operations of the other servers' protocols
    errors            the errors of each kind of route, with example texts
    responses         error responses of an operation
    schemas           types and docstrings → JSON Schema, by msgspec
    examples.json     recorded requests and answers
    document          assembles the document

A new route needs an ``Operation`` in one of the tables; ``tests/test_openapi.py`` fails without one.
"""
