"""The OpenAPI 3.1 document: what every route takes and answers, drawn from the types that the code itself uses.

    operations   what an operation is
    native, tfserving, openinference   the operations themselves, a table for each dialect
    errors       which errors there are, and the answers that they become
    schemas      from types and their docstrings to JSON Schema, by msgspec
    examples     requests and what was really answered to them
    document     puts it together

A new route gets an ``Operation`` in one of the tables; ``tests/test_openapi.py`` fails where one has none.
"""
