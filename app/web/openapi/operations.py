"""What an operation is: one entry of a table for each method of each path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from app.errors import ServingError
from app.web.input.options import ModelOptions

Media = Mapping[str, Any]  # media type → the type of what it holds; a tuple: one of several
File = Annotated[str, Meta(description="a picture's file", extra_json_schema={"format": "binary"})]


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        method: of HTTP.
        path: as OpenAPI writes it, ``/v2/models/{name}``.
        id: a name for it in programs.
        summary: a few words.
        answers: what comes with status 200.
        errors: what the application may answer instead, beside what any route may.
        takes: the body.
        is_private: whether nginx lets in this machine and private networks only.
        may_be_known: whether a client that has the answer already is told so, with status 304.
        may_be_empty: whether it may also have no body.
        takes_pictures: whether the body is ``one`` picture or ``many`` in any form, with ``options`` beside them.
        options: what the query takes.
        asks: headers of the request, and ``tells``: of the answer; by their names, see ``headers.py``.
        examples: the operation whose examples are shown; empty: its own.
        description: where one view answers several paths; else its docstring tells what it does.
    """

    method: str
    path: str
    id: str
    summary: str
    answers: Media
    errors: Collection[type[ServingError]] = ()
    takes: Media | None = None
    is_private: bool = False
    may_be_known: bool = False
    may_be_empty: bool = False
    takes_pictures: Literal["", "one", "many"] = ""
    options: type[ModelOptions] | None = None
    asks: Sequence[str] = ()
    tells: Sequence[str] = ()
    examples: str = ""
    description: str = ""


@dataclass(frozen=True)
class Group:
    """A table: the operations of one kind."""

    name: str
    description: str
    operations: Sequence[Operation]
