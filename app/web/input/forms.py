"""Multipart forms, by python-multipart: a third of the time that Werkzeug's own parser takes for a picture."""

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
# It warns of every damaged form, which the client is told of.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass
class Part:
    """One field of a form. ``is_file`` as browsers mean it: it came with a file name, even an empty one."""

    name: str
    filename: str | None
    data: bytes

    @property
    def is_file(self) -> bool:
        """Tell whether it is a file."""
        return self.filename is not None


class PartCollector:
    """Puts together what the parser calls back: headers in pieces, then data in pieces."""

    def __init__(self, most: int) -> None:
        """Start with no part; there may be ``most``."""
        self._most = most
        self.parts: list[Part] = []
        self._header = [b"", b""]
        self._disposition = b""
        self._pieces: list[memoryview] = []

    def begin(self) -> None:
        """Start a part."""
        if len(self.parts) >= self._most:
            raise MissingImage(f"the form has over {self._most:,} fields")
        self._disposition, self._pieces = b"", []

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's name."""
        self._header[0] += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's value."""
        self._header[1] += data[start:end]

    def end_header(self) -> None:
        """Keep the one header that matters."""
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def add_data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the part's data, without a copy."""
        self._pieces.append(memoryview(data)[start:end])

    def end(self) -> None:
        """Finish a part."""
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        told = None if filename is None else filename.decode("utf-8", "replace")
        self.parts.append(Part(name, told, b"".join(self._pieces)))


def read_form_body() -> bytes:
    """Return the body of the current request, a form.

    Raises:
        UnsupportedType: it is no multipart form.
        RequestEntityTooLarge: it is over the limit (Werkzeug's; answered as ``body_too_large``).
    """
    if request.mimetype != FORM:
        found = repr(cut(request.mimetype)) if request.mimetype else "no content type"
        raise UnsupportedType(f"expected {FORM} with a file in it, found {found}")
    return read_plain_body()


def has_more(body: bytes, sign: bytes, most: int) -> bool:
    """Return whether a sign occurs more often than ``most`` times.

    The parser looks at each boundary in Python, also where something follows that makes it none.
    """
    end = -1
    return all((end := body.find(sign, end + 1)) >= 0 for _ in range(most + 1))


def parse_form(body: bytes, most: int = MAX_FIELDS) -> list[Part]:
    """Return the parts of the current request's form; there may be ``most``.

    Raises:
        MissingImage: the form breaks off, is damaged, or has more.
    """
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    if has_more(body, b"\r\n--" + boundary, most + 1):
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
