"""The pictures of a request, however they come: as files in a form, as the body itself, as base64, or as URLs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np
from flask import current_app, request
from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType, ValidationError, json

from app.errors import (
    MalformedRequest,
    MissingImage,
    ServingError,
    UnreadableImage,
    UnsupportedType,
)
from app.serving.model import Servable
from app.web.context import model_server
from app.web.echoes import cut, list_names
from app.web.input.bodies import aside, read_body, read_plain_body
from app.web.input.client import find_model
from app.web.input.documents import check_size, is_list, open_level
from app.web.input.forms import FORM, Part, has_more, parse_form, read_form_body
from app.web.input.options import O, check_length, read_options
from app.web.input.tensors import B64, Base64, open_base64
from app.web.input.urls import Fetcher
from app.web.limits import MAX_FIELDS, MAX_NAME, SLICE_BYTES

FIELD = "image"
FIELD_IS_TEXT = (
    f"the field {FIELD!r} holds text, not a file; curl sends one with -F {FIELD}=@picture.jpg"
)
JSON_FIELD = "images"
URL_ENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"
RAW = "application/octet-stream"
HEX_DIGITS = np.full(256, 255, np.uint8)  # what each sign stands for; 255: for nothing
HEX_DIGITS[list(b"0123456789abcdef")] = HEX_DIGITS[list(b"0123456789ABCDEF")] = range(16)


class Source(Struct, forbid_unknown_fields=True):
    """A picture in JSON: exactly one of the two.

    Attributes:
        b64: the file in base64, of either alphabet, padded or not; ``data:image/png;base64,`` may stand before it.
        url: where the server fetches the file from, where its operator allows that.
    """

    b64: Base64 | UnsetType = UNSET
    url: str | UnsetType = UNSET


@dataclass(frozen=True)
class Sent:
    """One picture as it was sent: its file, or base64, or base64 as a URL quotes it, or its URL."""

    name: str
    file: bytes | None = None
    text: str | bytes | memoryview = b""
    is_quoted: bool = False
    url: str | None = None


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


def read_request(kind: type[O]) -> tuple[Servable, list[Upload], O]:
    """Return the version that answers the current request, its pictures, at least one, and its options.

    Raises:
        ServingError: the request as a whole cannot be used.
    """
    mimetype = request.mimetype
    early = read_options(kind, [])
    may_follow = mimetype in (JSON, FORM, URL_ENCODED)  # the body may name the model
    servable = None
    if early.model or early.version or not may_follow:
        servable = find_model(early.target())
        servable.check_capacity()
    body, sent, given = read_pictures(mimetype)
    options = read_options(kind, given, is_json=mimetype == JSON)
    model_server().check_count(len(sent))
    if servable is None or options.target() != early.target():
        servable = find_model(options.target())
    servable.check_capacity()
    return servable, open_pictures(body, sent), options


def read_pictures(mimetype: str) -> tuple[bytes, list[Sent], Given]:
    """Return the current request's body, the pictures in it as they were sent, and its options."""
    check_count, most = model_server().check_count, model_server().most_pictures + MAX_FIELDS
    if mimetype == JSON:
        body = read_body()
        return body, *aside(body, lambda: read_json(body, check_count))
    if mimetype == FORM:
        body = read_form_body()
        return body, *sort_parts(parse_form(body, most))
    if mimetype == URL_ENCODED:
        body = read_plain_body()
        return body, *read_url_encoded(body, most)
    if mimetype == RAW or mimetype.startswith("image/"):
        body = read_body()
        return body, [Sent(number([]), body)], []
    found = repr(cut(mimetype)) if mimetype else "no content type"
    raise UnsupportedType(
        f"expected {FORM}, {JSON}, {URL_ENCODED}, image/* or {RAW}, found {found}"
    )


def sort_parts(parts: list[Part]) -> tuple[list[Sent], Given]:
    """Sort a form: every file ``image``, every ``b64``; what else it has are options."""
    sent: list[Sent] = []
    given: Given = []
    for part in parts:
        if part.name == FIELD and part.is_file:
            sent.append(Sent((part.filename or number(sent))[:MAX_NAME], part.data))
        elif part.name == FIELD:
            raise MissingImage(FIELD_IS_TEXT)
        elif part.name == B64:  # text, or a file of it: some clients send base64 as binary data
            sent.append(Sent(number(sent), text=part.data))
        elif part.is_file:
            raise MissingImage(
                f"the form has a file {cut(part.name)!r}; files are called {FIELD!r} here"
            )
        else:
            check_length(part.name, part.data)
            given.append((part.name, part.data.decode("utf-8", "replace")))
    if not sent:
        names = list_names(name for name, _ in given) or "no field at all"
        raise MissingImage(f"the form has no file {FIELD!r}; it has {names}")
    return sent, given


def read_url_encoded(body: bytes, most: int) -> tuple[list[Sent], Given]:
    """Read ``b64=…`` and options, ``most`` fields of them."""
    if has_more(body, b"&", most - 1):
        raise MalformedRequest(f"the form has over {most:,} fields")
    sent: list[Sent] = []
    quoted: list[tuple[memoryview, memoryview]] = []
    for name, value in split_fields(body):
        if name == B64.encode():
            sent.append(Sent(number(sent), text=value, is_quoted=True))
        else:
            quoted.append((name, value))
    if not sent:
        raise MissingImage(
            f"the body is {URL_ENCODED} without a field {B64!r}; curl sends a picture as it is with"
            " -H 'Content-Type: image/jpeg' --data-binary @picture.jpg"
        )
    for name, value in quoted:
        check_length(name, value)
    return sent, [(decode_field(name), decode_field(value)) for name, value in quoted]


def split_fields(body: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield the names and values of a URL-encoded form, without a copy."""
    view, begin = memoryview(body), 0
    while begin < len(body):
        end = body.find(b"&", begin)
        end = len(body) if end < 0 else end
        middle = body.find(b"=", begin, end)
        middle = end if middle < 0 else middle
        yield view[begin:middle], view[middle + 1 : end]
        begin = end + 1


def read_json(body: bytes, check_count: Callable[[int], None]) -> tuple[list[Sent], Given]:
    """Read ``{"images": [{"b64": "…"}, {"url": "…"}], "top_k": 3}`` (on any thread)."""
    check_size(body)
    try:
        content = json.decode(body, type=dict[str, Raw])
        images = content.pop(JSON_FIELD, Raw(b"[]"))
        raws = open_level(images) if is_list(images) else json.decode(images, type=list)
        if raws:
            check_count(len(raws))
        sources = [read_source(raw, place) for place, raw in enumerate(raws)]
        for name, value in content.items():
            check_length(name, memoryview(value))
        given = [(name, as_whole(json.decode(value))) for name, value in content.items()]
    except ValidationError as error:
        raise MalformedRequest(f"the JSON is not as it should be: {error}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is no JSON: {error}") from error
    if not sources:
        raise MissingImage(
            f'the JSON has no pictures: expected {{"{JSON_FIELD}": [{{"{B64}": "…"}}]}}'
        )
    return sources, given


def read_source(raw: Raw, place: int) -> Sent:
    """Return the picture at a place of a JSON request."""
    try:
        source = json.decode(raw, type=Source)
    except ValidationError as error:
        text, _, at = str(error).partition(" - at ")
        within = at.strip("`$")
        raise ValidationError(f"{text} - at `$[{place}]{within}`") from error
    if (source.b64 is UNSET) == (source.url is UNSET):
        raise MalformedRequest(f"{JSON_FIELD}[{place}] needs one of {B64!r} and 'url'")
    if source.url is not UNSET:
        return Sent(source.url[:MAX_NAME], url=source.url)
    return Sent(f"image {place + 1}", text=source.b64 or "")


def as_whole(value: Any) -> Any:
    """Return a JSON value; 3.0 is a whole number there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def open_pictures(body: bytes, sent: list[Sent]) -> list[Upload]:
    """Open the pictures of a request; those of URLs are fetched side by side."""
    fetcher: Fetcher = current_app.extensions["fetcher"]
    urls = iter(fetcher.fetch_all([each.url for each in sent if each.url is not None]))
    texts = [each for each in sent if each.file is None and each.url is None]
    read = iter(aside(body, lambda: [open_text(each) for each in texts]))
    uploads: list[Upload] = []
    for each in sent:
        if each.file is not None:
            uploads.append(Upload(each.name, io.BytesIO(each.file)))
        else:
            uploads.append(Upload(each.name, next(read if each.url is None else urls)))
    return uploads


def open_text(sent: Sent) -> BinaryIO | ServingError:
    """Return a picture that was sent in base64; where it is none, that is its own error."""
    text = sent.text
    if isinstance(text, str):
        text = text.partition(",")[2] if text.startswith("data:") else text
    else:
        text = unquote(text) if sent.is_quoted else text
        text = bytes(text).partition(b",")[2] if text[:5] == b"data:" else text
    try:
        return open_base64(text)
    except MalformedRequest as error:
        return UnreadableImage(error.message)


def unquote(value: bytes | memoryview) -> bytes:
    """Return base64 of a URL-encoded form as text, slice by slice.

    Some clients forget to write "+" as "%2B", so that it comes as a space, or stays.
    """
    pieces, begin = [], 0
    while begin < len(value):
        end = begin + SLICE_BYTES
        end += bytes(value[end - 2 : end]).rfind(b"%") + 1  # not through %2B
        pieces.append(unquote_slice(bytes(value[begin:end])).replace(b" ", b"+"))
        begin = end
    return b"".join(pieces)


def unquote_slice(text: bytes) -> bytes:
    """Return a text with each %2B as the byte that it stands for, as ``unquote_to_bytes`` does, but in time."""
    if b"%" not in text:
        return text
    signs = np.frombuffer(text, np.uint8)
    (places,) = np.nonzero(signs[:-2] == ord("%"))
    high, low = HEX_DIGITS[signs[places + 1]], HEX_DIGITS[signs[places + 2]]
    whole = (high < 16) & (low < 16)
    places = places[whole]
    read = signs.copy()
    read[places] = high[whole] * 16 + low[whole]
    return np.delete(read, np.concatenate([places + 1, places + 2])).tobytes()


def number(sent: list[Sent]) -> str:
    """Return the name of the next picture, which has none of its own."""
    return f"image {len(sent) + 1}"


def decode_field(text: memoryview) -> str:
    """Return a field of a URL-encoded form as text."""
    return unquote_to_bytes(bytes(text).replace(b"+", b" ")).decode("utf-8", "replace")
