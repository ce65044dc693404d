"""Requests of two lengths, the shorter of which would end before another request (RFC 9112, 11.2).

The request that is embedded carries ``SECRET`` in its path: the server's 404 would name it.
"""

from __future__ import annotations

from collections.abc import Iterator

Stream = tuple[str, bytes, int]  # name, bytes, answers at most
SECRET = "embedded-request"  # noqa: S105 (a path)
HIDDEN = f"GET /{SECRET} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
HOST = b"Host: localhost\r\n"
BOUNDARY = b"0\r\n\r\n"


def post(
    headers: bytes, body: bytes = b"", path: bytes = b"/healthz", version: bytes = b"1.1"
) -> bytes:
    """Return a request with headers as they are given, each with its line's end."""
    return b"POST " + path + b" HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n" + body


def get(
    path: bytes, headers: bytes = b"", method: bytes = b"GET", version: bytes = b" HTTP/1.1"
) -> bytes:
    """Return a request without a body."""
    return method + b" " + path + version + b"\r\n" + HOST + headers + b"\r\n"


def smuggled() -> Iterator[Stream]:
    """Yield requests of two lengths, the shorter of which would end before another request."""
    size = b"%d" % len(BOUNDARY + HIDDEN)
    for encoding in TRANSFER_ENCODINGS:
        lengths = b"Content-Length: " + size + b"\r\n"
        # CL.TE: what reads by chunks ends at the 0 and takes the rest for a request.
        for headers in (lengths + encoding, encoding + lengths):
            yield "smuggling CL.TE", post(headers, BOUNDARY + HIDDEN), 1
        # TE.CL: what reads by length ends after four bytes.
        chunk = b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + BOUNDARY
        most = (
            3 if encoding in NO_ENCODINGS else 1
        )  # else the length alone counts, and the rest is honest
        yield "smuggling TE.CL", post(b"Content-Length: 4\r\n" + encoding, chunk), most
    for length in CONTENT_LENGTHS:
        yield "smuggling CL", post(length, HIDDEN), 1
    whole = b"Content-Length: %d\r\n" % len(HIDDEN)
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"POST", b"TRACE"):
        for path in (b"/healthz", b"/nothing", b"/samples/street.jpg", b"/model_predict"):
            yield "smuggling CL.0", get(path, whole, method) + HIDDEN, 1
        yield (
            "smuggling expect",
            get(b"/healthz", whole + b"Expect: 100-continue\r\n", method) + HIDDEN,
            1,
        )
    yield (
        "smuggling upgrade",
        get(b"/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + whole) + HIDDEN,
        1,
    )
    yield "smuggling h2c", get(b"/", UPGRADE_H2C + whole) + HIDDEN, 1
    yield (
        "smuggling 1.0",
        post(b"Transfer-Encoding: chunked\r\n", BOUNDARY + HIDDEN, version=b"1.0"),
        1,
    )


UPGRADE_H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
TRANSFER_ENCODINGS = (
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding:chunked\r\n",
    b"Transfer-Encoding:\tchunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: identity, chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"X: y\r\n Transfer-Encoding: chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n",
    b"X: y\rTransfer-Encoding: chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Transfer-Encoding\x00: chunked\r\n",
    b"Transfer-Encoding: chunked\x00\r\n",
    b"\x00Transfer-Encoding: chunked\r\n",
    b"TRANSFER-ENCODING: CHUNKED\r\n",
    b'Transfer-Encoding: "chunked"\r\n',
    b"Transfer-Encoding: chunked;a=b\r\n",
    b"Transfer-Encoding: \xffchunked\r\n",
    b"Transfer-Encoding: cow\r\n",
    b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding\r\n: chunked\r\n",
    b"Transfer-\r\nEncoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
)
# Headers of another name, or lines that nginx leaves out because they have none.
NO_ENCODINGS = (
    b"Transfer_Encoding: chunked\r\n",
    b"Transfer-\r\nEncoding: chunked\r\n",
)
CONTENT_LENGTHS = tuple(
    b"".join(b"Content-Length:" + value + b"\r\n" for value in values)
    for values in (
        (b" 0", b" %d" % len(HIDDEN)),
        (b" %d" % len(HIDDEN), b" 0"),
        (b" %d, 0" % len(HIDDEN),),
        (b" +%d" % len(HIDDEN),),
        (b" -%d" % len(HIDDEN),),
        (b" 0x%x" % len(HIDDEN),),
        (b" %d.0" % len(HIDDEN),),
        (b" 1_0",),
        (b" %d \x00" % len(HIDDEN),),
        (b"\x0b%d" % len(HIDDEN),),
        (b" \xd9\xa1",),
        (b" 99999999999999999999999999",),
        (b" 18446744073709551616",),
        (b" 9223372036854775807",),
        (b"",),
        (b" a",),
        (b" %d\r\n " % len(HIDDEN),),
    )
)
