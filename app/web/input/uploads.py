"""The images of a request: files in a form, the body itself, base64, or URLs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from flask import current_app, g, request
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
from app.web.input.bodies import process_body, read_body, read_plain_body
from app.web.input.client import find_model
from app.web.input.documents import check_size, is_list, open_level
from app.web.input.forms import FORM, Part, occurs_more, parse_form, read_form_body
from app.web.input.options import ModelOptions, check_length, read_options
from app.web.input.tensors import B64, Base64, open_base64
from app.web.input.url_encoded import decode_field, split_fields, unquote
from app.web.input.urls import Fetcher
from app.web.limits import MAX_FIELDS, MAX_NAME
from app.web.quoting import cut, list_names

FIELD = "image"
FIELD_IS_TEXT = (
    f"the field {FIELD!r} holds text, not a file; curl sends one with -F {FIELD}=@picture.jpg"
)
JSON_FIELD = "images"
URL_ENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"
RAW = "application/octet-stream"


class Source(Struct, forbid_unknown_fields=True):
    """Image in JSON: either ``b64`` or ``url``.

    Attributes:
        b64: The image file in base64; standard or URL-safe alphabet, with or without padding. A data URL
            (``data:image/png;base64,…``) is accepted too.
        url: URL that the server fetches the file from, if the operator allows its host.
    """

    b64: Base64 | UnsetType = UNSET
    url: str | UnsetType = UNSET


@dataclass(frozen=True)
class EncodedImage:
    """One image in its transfer form: a file, base64 or a URL.

    Attributes:
        name: the name in the response.
        file: the file, or None.
        text: base64.
        is_quoted: the base64 is percent-encoded.
        url: the URL, or None.
    """

    name: str
    file: bytes | None = None
    text: str | bytes | memoryview = b""
    is_quoted: bool = False
    url: str | None = None


@dataclass(frozen=True)
class Upload:
    """One image of a request: its name, and its file or error."""

    name: str
    file: BinaryIO | ServingError

    @property
    def bytes(self) -> int:
        """Size of the file; 0 for an error."""
        return 0 if isinstance(self.file, ServingError) else self.file.seek(0, io.SEEK_END)


O = TypeVar("O", bound=ModelOptions)  # noqa: E741
OptionPairs = list[tuple[str, Any]]  # options by their names


def read_request(kind: type[O]) -> tuple[Servable, list[Upload], O]:
    """Return the version that answers the current request, its images (at least one) and its options.

    Raises:
        ServingError: the request as a whole cannot be used.
    """
    mimetype = request.mimetype
    early = read_options(kind, [])
    may_name_model = mimetype in (JSON, FORM, URL_ENCODED)  # in its body
    servable = None
    # Where the model is known already, a request that could not be answered is refused before its body is read.
    if early.model or early.version or not may_name_model:
        servable = find_model(early.target())
        servable.check_capacity()
    body, encoded, pairs = read_images(mimetype)
    options = read_options(kind, pairs, is_json=mimetype == JSON)
    model_server().check_count(len(encoded))
    if servable is None or options.target() != early.target():
        servable = find_model(options.target())
    servable.check_capacity()
    return servable, open_images(body, encoded), options


def read_images(mimetype: str) -> tuple[bytes, list[EncodedImage], OptionPairs]:
    """Return the body of the current request, its encoded images and its options."""
    check_count, most = model_server().check_count, model_server().most_images + MAX_FIELDS
    if mimetype == JSON:
        body = read_body()
        return body, *process_body(body, lambda: read_json(body, check_count))
    if mimetype == FORM:
        body = read_form_body()
        return body, *sort_parts(parse_form(body, most))
    if mimetype == URL_ENCODED:
        body = read_plain_body()
        return body, *read_url_encoded(body, most)
    if mimetype == RAW or mimetype.startswith("image/"):
        body = read_body()
        return body, [EncodedImage(default_name([]), body)], []
    found = repr(cut(mimetype)) if mimetype else "no content type"
    raise UnsupportedType(
        f"expected {FORM}, {JSON}, {URL_ENCODED}, image/* or {RAW}, found {found}"
    )


def sort_parts(parts: list[Part]) -> tuple[list[EncodedImage], OptionPairs]:
    """Split a form into images (files ``image``, fields ``b64``) and options (all other fields)."""
    encoded: list[EncodedImage] = []
    pairs: OptionPairs = []
    for part in parts:
        if part.name == FIELD and part.is_file:
            encoded.append(
                EncodedImage((part.filename or default_name(encoded))[:MAX_NAME], part.data)
            )
        elif part.name == FIELD:
            raise MissingImage(FIELD_IS_TEXT)
        elif part.name == B64:  # text, or a file of it: some clients send base64 as binary data
            encoded.append(EncodedImage(default_name(encoded), text=part.data))
        elif part.is_file:
            raise MissingImage(
                f"the form has a file {cut(part.name)!r}; files are called {FIELD!r} here"
            )
        else:
            check_length(part.name, part.data)
            pairs.append((part.name, part.data.decode("utf-8", "replace")))
    if not encoded:
        names = list_names(name for name, _ in pairs) or "no field at all"
        raise MissingImage(f"the form has no file {FIELD!r}; it has {names}")
    return encoded, pairs


def read_url_encoded(body: bytes, most: int) -> tuple[list[EncodedImage], OptionPairs]:
    """Read ``b64=…`` and options from a URL-encoded form of at most ``most`` fields."""
    if occurs_more(body, b"&", most - 1):
        raise MalformedRequest(f"the form has over {most:,} fields")
    encoded: list[EncodedImage] = []
    quoted: list[tuple[memoryview, memoryview]] = []
    for name, value in split_fields(body):
        if name == B64.encode():
            encoded.append(EncodedImage(default_name(encoded), text=value, is_quoted=True))
        else:
            quoted.append((name, value))
    if not encoded:
        raise MissingImage(
            f"the body is {URL_ENCODED} without a field {B64!r}; curl sends a picture as it is with"
            " -H 'Content-Type: image/jpeg' --data-binary @picture.jpg"
        )
    for name, value in quoted:
        check_length(name, value)
    return encoded, [(decode_field(name), decode_field(value)) for name, value in quoted]


def read_json(
    body: bytes, check_count: Callable[[int], None]
) -> tuple[list[EncodedImage], OptionPairs]:
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
        pairs = [(name, as_whole(json.decode(value))) for name, value in content.items()]
    except ValidationError as error:
        raise MalformedRequest(f"the JSON is not as it should be: {error}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is no JSON: {error}") from error
    if not sources:
        raise MissingImage(
            f'the JSON has no pictures: expected {{"{JSON_FIELD}": [{{"{B64}": "…"}}]}}'
        )
    return sources, pairs


def read_source(raw: Raw, place: int) -> EncodedImage:
    """Return the image at an index of a JSON request. Raises MalformedRequest and ValidationError."""
    try:
        source = json.decode(raw, type=Source)
    except ValidationError as error:
        text, _, at = str(error).partition(" - at ")
        within = at.strip("`$")
        raise ValidationError(f"{text} - at `$[{place}]{within}`") from error
    if (source.b64 is UNSET) == (source.url is UNSET):
        raise MalformedRequest(f"{JSON_FIELD}[{place}] needs one of {B64!r} and 'url'")
    if source.url is not UNSET:
        return EncodedImage(source.url[:MAX_NAME], url=source.url)
    return EncodedImage(f"image {place + 1}", text=source.b64 or "")


def as_whole(value: Any) -> Any:
    """Return a JSON value with integral floats as int: JSON does not distinguish 3.0 from 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def open_images(body: bytes, encoded: list[EncodedImage]) -> list[Upload]:
    """Open the images of a request; URLs are fetched concurrently."""
    fetcher: Fetcher = current_app.extensions["fetcher"]
    wanted = [each.url for each in encoded if each.url is not None]
    urls = iter(fetcher.fetch_all(wanted, g.trace.headers() if g.trace else {}))
    texts = [each for each in encoded if each.file is None and each.url is None]
    read = iter(process_body(body, lambda: [open_text(each) for each in texts]))
    uploads: list[Upload] = []
    for each in encoded:
        if each.file is not None:
            uploads.append(Upload(each.name, io.BytesIO(each.file)))
        else:
            uploads.append(Upload(each.name, next(read if each.url is None else urls)))
    return uploads


def open_text(encoded: EncodedImage) -> BinaryIO | ServingError:
    """Decode a base64 image; invalid base64 is returned as the error of this image."""
    text = encoded.text
    if isinstance(text, str):
        text = text.partition(",")[2] if text.startswith("data:") else text
    else:
        text = unquote(text) if encoded.is_quoted else text
        text = bytes(text).partition(b",")[2] if text[:5] == b"data:" else text
    try:
        return open_base64(text)
    except MalformedRequest as error:
        return UnreadableImage(error.message)


def default_name(encoded: list[EncodedImage]) -> str:
    """Return the default name of the next image."""
    return f"image {len(encoded) + 1}"
