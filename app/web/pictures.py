"""The pictures of a request, however they come: as files in a form, as the body itself, as base64, or as URLs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from flask import request
from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType, ValidationError, json

from app.errors import (
    InvalidOption,
    MalformedRequest,
    MissingImage,
    ServingError,
    UnreadableImage,
    UnsupportedType,
)
from app.web import model_server
from app.web.bodies import abbreviate, read_body
from app.web.forms import FORM, MAX_PARTS, read_form
from app.web.options import O, read_options
from app.web.tensors import B64, Base64, open_base64

FIELD = "image"
JSON_FIELD = "images"
URL_ENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"
RAW = "application/octet-stream"
MAX_OPTION = 1000  # bytes of an option's value in JSON
MAX_NAME = 255  # characters of a file's name that an answer repeats


class Source(Struct, forbid_unknown_fields=True):
    """A picture in JSON: exactly one of the two.

    Attributes:
        b64: the file in base64, of either alphabet, padded or not; ``data:image/png;base64,`` may stand before it.
        url: where the server fetches the file from, where its operator allows that.
    """

    b64: Base64 | UnsetType = UNSET
    url: str | UnsetType = UNSET


@dataclass(frozen=True)
class Upload:
    """One picture of a request: its name, and its file, or why there is none."""

    name: str
    file: BinaryIO | ServingError

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return 0 if isinstance(self.file, ServingError) else self.file.seek(0, io.SEEK_END)


Given = list[tuple[str, Any]]  # options by their names


def read_request(kind: type[O]) -> tuple[list[Upload], O]:
    """Return the current request's pictures, at least one, and its options.

    Raises:
        ServingError: the request as a whole cannot be used.
    """
    mimetype = request.mimetype
    if mimetype == JSON:
        uploads, given = read_json(read_body())
    elif mimetype == FORM:
        uploads, given = read_multipart()
    elif mimetype == URL_ENCODED:
        uploads, given = read_url_encoded(request.get_data(cache=False))
    elif mimetype == RAW or mimetype.startswith("image/"):
        body = read_body()
        uploads, given = [Upload("image 1", io.BytesIO(body))], []
    else:
        found = repr(mimetype) if mimetype else "no content type"
        raise UnsupportedType(
            f"expected {FORM}, {JSON}, {URL_ENCODED}, image/* or {RAW}, found {found}"
        )
    options = read_options(kind, given, is_json=mimetype == JSON)
    model_server().check_count(len(uploads))
    return uploads, options


def read_multipart() -> tuple[list[Upload], Given]:
    """Read a form: every file ``image``, every ``b64``; what else it has are options."""
    uploads: list[Upload] = []
    given: Given = []
    for part in read_form(model_server().most_pictures + MAX_PARTS):
        if part.name == FIELD and part.is_file:
            name = (part.filename or number(uploads))[:MAX_NAME]
            uploads.append(Upload(name, io.BytesIO(part.data)))
        elif part.name == FIELD:
            raise MissingImage(
                f"the field {FIELD!r} holds text, not a file; curl sends one with -F {FIELD}=@picture.jpg"
            )
        elif part.name == B64:  # text, or a file of it: some clients send base64 as binary data
            uploads.append(open_text(number(uploads), part.data.decode("utf-8", "replace")))
        elif part.is_file:
            raise MissingImage(
                f"the form has a file {part.name!r}; files are called {FIELD!r} here"
            )
        else:
            given.append((part.name, part.data.decode("utf-8", "replace")))
    if not uploads:
        names = ", ".join(sorted({name for name, _ in given})) or "no field at all"
        raise MissingImage(f"the form has no file {FIELD!r}; it has {names}")
    return uploads, given


def read_url_encoded(body: bytes) -> tuple[list[Upload], Given]:
    """Read ``b64=…``, as older clients send it; some forget to write "+" as "%2B", so it comes as a space."""
    uploads: list[Upload] = []
    given: Given = []
    for field in body.split(b"&") if body else []:
        name, _, value = field.partition(b"=")
        if len(uploads) + len(given) >= model_server().most_pictures + MAX_PARTS:
            raise MalformedRequest(f"the form has over {len(uploads) + len(given):,} fields")
        if name == B64.encode():
            text = unquote_to_bytes(value).decode("utf-8", "replace")
            uploads.append(open_text(number(uploads), text.replace(" ", "+")))
        else:
            given.append((decode_field(name), decode_field(value)))
    if not uploads:
        raise MissingImage(
            f"the body is {URL_ENCODED} without a field {B64!r}; curl sends a picture as it is with"
            " -H 'Content-Type: image/jpeg' --data-binary @picture.jpg"
        )
    return uploads, given


def read_json(body: bytes) -> tuple[list[Upload], Given]:
    """Read ``{"images": [{"b64": "…"}, {"url": "…"}], "top_k": 3}``."""
    try:
        content = json.decode(body, type=dict[str, Raw])
        sources = json.decode(content.pop(JSON_FIELD, b"[]"), type=list[Source])
        for name, value in content.items():
            if len(value) > MAX_OPTION:
                raise InvalidOption(f"{abbreviate(name)} is longer than {MAX_OPTION} bytes")
        given = [(name, as_whole(json.decode(value))) for name, value in content.items()]
    except ValidationError as error:
        raise MalformedRequest(f"the JSON is not as it should be: {error}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is no JSON: {error}") from error
    if not sources:
        raise MissingImage(
            f'the JSON has no pictures: expected {{"{JSON_FIELD}": [{{"{B64}": "…"}}]}}'
        )
    model_server().check_count(len(sources))
    return open_sources(sources), given


def as_whole(value: Any) -> Any:
    """Return a JSON value; 3.0 is a whole number there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def open_sources(sources: list[Source]) -> list[Upload]:
    """Open the pictures of a JSON request; the URLs are fetched side by side."""
    for place, source in enumerate(sources):
        if (source.b64 is UNSET) == (source.url is UNSET):
            raise MalformedRequest(f"{JSON_FIELD}[{place}] needs one of {B64!r} and 'url'")
    fetched = iter(
        model_server().fetch([source.url for source in sources if source.url is not UNSET])
    )
    uploads: list[Upload] = []
    for source in sources:
        if source.url is not UNSET:
            uploads.append(Upload(source.url[:MAX_NAME], next(fetched)))
        else:
            uploads.append(open_text(number(uploads), source.b64 or ""))
    return uploads


def open_text(name: str, text: str) -> Upload:
    """Open a picture in base64; where it is none, that is its own error."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, open_base64(text))
    except MalformedRequest as error:
        return Upload(name, UnreadableImage(error.message))


def number(uploads: list[Upload]) -> str:
    """Return the name of the next picture, which has none of its own."""
    return f"image {len(uploads) + 1}"


def decode_field(text: bytes) -> str:
    """Return a field of a URL-encoded form as text."""
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")
