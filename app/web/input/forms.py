"""Multipart forms, parsed by python-multipart, which takes a third of the time of Werkzeug's parser."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flask import request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MissingImage, UnsupportedType
from app.web.input.bodies import read_plain_body
from app.web.limits import MAX_FIELDS
from app.web.quoting import cut

FORM = "multipart/form-data"
# It logs a warning for every damaged form; the client gets the error instead.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass
class Part:
    """One field of a form.

    Attributes:
        name: the name of the field.
        filename: the file name, which may be empty; None: the field is text.
        data: the content.
    """

    name: str
    filename: str | None
    data: bytes

    @property
    def is_file(self) -> bool:
        """Whether the field is a file."""
        return self.filename is not None


class PartCollector:
    """Collects parts from the callbacks of the parser, which passes headers and data in pieces.

    Attributes:
        parts: the parts so far.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.parts: list[Part] = []
        self._header = [b"", b""]
        self._disposition = b""
        self._pieces: list[memoryview] = []

    def begin(self) -> None:
        """Start a part. Raises MissingImage if there are too many."""
        if len(self.parts) >= self._most:
            raise MissingImage(f"the form has over {self._most:,} fields")
        self._disposition, self._pieces = b"", []

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        """Append a piece of a header name."""
        self._header[0] += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        """Append a piece of a header value."""
        self._header[1] += data[start:end]

    def end_header(self) -> None:
        """Keep Content-Disposition, ignore all other headers."""
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def add_data(self, data: bytes, start: int, end: int) -> None:
        """Append a piece of data, without a copy."""
        self._pieces.append(memoryview(data)[start:end])

    def end(self) -> None:
        """Finish a part."""
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        decoded = None if filename is None else filename.decode("utf-8", "replace")
        self.parts.append(Part(name, decoded, b"".join(self._pieces)))


def read_form_body() -> bytes:
    """Return the body of the current request, a multipart form.

    Raises:
        UnsupportedType: the body is not a multipart form.
        RequestEntityTooLarge: the body is over the limit (Werkzeug's; answered as ``body_too_large``).
    """
    if request.mimetype != FORM:
        mimetype = repr(cut(request.mimetype)) if request.mimetype else "no content type"
        raise UnsupportedType(f"expected {FORM} with a file in it, found {mimetype}")
    return read_plain_body()


def occurs_more(body: bytes, pattern: bytes, limit: int) -> bool:
    """Return whether a pattern occurs more than ``limit`` times.

    The parser handles each boundary in Python, even those that turn out to be data.
    """
    end = -1
    return all((end := body.find(pattern, end + 1)) >= 0 for _ in range(limit + 1))


def parse_form(body: bytes, most: int = MAX_FIELDS) -> list[Part]:
    """Return the parts of a form whose boundary is in the current request's content type.

    Args:
        body: the form.
        most: the maximum number of parts.

    Raises:
        MissingImage: the form is damaged, truncated, or has too many parts.
    """
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    if occurs_more(body, b"\r\n--" + boundary, most + 1):
        raise MissingImage(f"the form has over {most:,} fields, or its boundary within them")
    collector = PartCollector(most)
    callbacks = {
        "on_part_begin": collector.begin,
        "on_header_field": collector.add_header_name,
        "on_header_value": collector.add_header_value,
        "on_header_end": collector.end_header,
        "on_part_data": collector.add_data,
        "on_part_end": collector.end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MissingImage(f"the form is damaged ({len(body):,} bytes): {error}") from error
    return collector.parts
