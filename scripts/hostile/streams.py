"""Streams of bytes that are no HTTP, too much of it, or two kinds of it at once.

Each says how many answers a compliant server gives at most (RFC 9112).
"""

from __future__ import annotations

from collections.abc import Iterator

from scripts.hostile.judge import Case
from scripts.hostile.smuggling import HIDDEN, HOST, SECRET, UPGRADE_H2C, Stream, get, post, smuggled

QUIET_S = 1.5


def all_streams() -> Iterator[Case]:
    """Yield all of them."""
    for number, (name, data, most) in enumerate(
        [*smuggled(), *odd_chunks(), *odd_headers(), *odd_lines(), *odd_paths(), *pipelined()]
    ):
        secret = SECRET.encode() if HIDDEN in data and most == 1 else b""
        yield Case(
            f"{name}#{number}", data, most=most, may_close=True, quiet_s=QUIET_S, secret=secret
        )


def odd_chunks() -> Iterator[Stream]:
    """Yield chunked bodies with odd sizes, extensions, ends and trailers."""
    chunked = b"Transfer-Encoding: chunked\r\n"
    # White space after a size and any extension are allowed, or were; what follows such a body is a request.
    for size in (b"5 ", b"5;" + b"a" * 20_000, b"0" * 9000 + b"5"):
        yield "chunk size", post(chunked, size + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN), 2
    for size in CHUNK_SIZES:
        yield "chunk size", post(chunked, size + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN), 1
    ends = (
        b"5\nhello\n0\n\n",
        b"5\rhello\r0\r\r",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
    )
    for body in ends:
        yield "chunk end", post(chunked, body), 1
    trailers = (
        b"Content-Length: 100\r\n",
        b"X: " + b"y" * 70_000 + b"\r\n",
        b"X: y\r\n" * 5000,
        b"no colon\r\n",
        b"\x00\r\n",
    )
    for trailer in trailers:
        yield "trailer", post(chunked, b"0\r\n" + trailer + b"\r\n"), 1
    yield "tiny chunks", post(chunked, b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n", b"/predict"), 1
    yield "endless extension", post(chunked, b"1;" + b"a" * 2_000_000), 1


CHUNK_SIZES = (
    *(b"-1", b"0x5", b" 5", b"+5", b"g", b"", b'5;a="\r\n"'),
    *(b"f" * 15, b"f" * 16, b"f" * 17, b"80000000", b"100000000"),
    *(b"7fffffffffffffff", b"8000000000000000"),
)


def odd_headers() -> Iterator[Stream]:
    """Yield floods of headers and odd ones."""
    yield "header flood", get(b"/healthz", b"A: b\r\n" * 50_000), 1
    yield "many names", get(b"/healthz", b"".join(b"X-%d: y\r\n" % i for i in range(2000))), 1
    yield "long header", get(b"/healthz", b"X: " + b"y" * 2_000_000 + b"\r\n"), 1
    yield "long name", get(b"/healthz", b"X" * 100_000 + b": y\r\n"), 1
    yield "headers of 7 kB", get(b"/healthz", (b"X: " + b"y" * 7000 + b"\r\n") * 4), 1
    for header in ODD_HEADERS:
        # An empty line ends the headers, also one without CR.
        yield "odd header", get(b"/healthz", header), 1 + header.count(b"\n\n")
    for hosts in (
        b"",
        b"Host: a\r\nHost: b\r\n",
        b"Host:\r\n",
        b"Host: \xff\r\n",
        b"Host: a/../b\r\n",
        b"Host: " + b"a" * 9000 + b"\r\n",
    ):
        yield "hosts", b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n", 1


ODD_HEADERS = (
    *(
        b"no colon\r\n",
        b": no name\r\n",
        b"a b: c\r\n",
        b"a\x00b: c\r\n",
        b"a: b\x00c\r\n",
        b"a: b\rc: d\r\n",
    ),
    *(
        b" folded: c\r\n",
        b"a: b\r\n c\r\n",
        b"a: b\n\nGET /x HTTP/1.1\r\n",
        b"\xff: \xff\r\n",
        b"a: \x7f\x1b[31m\r\n",
    ),
    *(
        b"X-Request-ID: \x85\r\n",
        b"X-Request-ID: a\r\nX-Request-ID: b\r\n",
        b"X-Upload-Time: nan\r\n",
        b"X-Request-Start: t=-1\r\n",
    ),
    *(
        b"X-Forwarded-Ssl: on\r\n",
        b"X-Forwarded-Protocol: ssl\r\n",
        b"X-Forwarded-Proto: https\r\n",
        b"SCRIPT_NAME: /a\r\n",
    ),
    *(
        b"Connection: X-Real-IP, Host\r\n",
        b"Connection: close, keep-alive\r\n",
        b"Expect: 200-ok\r\n",
        b"TE: trailers, deflate\r\n",
    ),
    *(
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        UPGRADE_H2C,
        b"Cookie: " + b"a=b; " * 1500 + b"\r\n",
    ),
    *(
        b"Authorization: Basic " + b"A" * 4000 + b"\r\n",
        b"Range: bytes=0-0," + b"1-1," * 1500 + b"\r\n",
        b"Content-Type: " + b";" * 4000 + b"\r\n",
    ),
)


def odd_lines() -> Iterator[Stream]:
    """Yield request lines and methods that are none, other protocols, and silence."""
    for line in ODD_LINES:
        yield "request line", line + b"\r\n" + HOST + b"\r\n", 1
    yield "long line", get(b"/" + b"a" * 2_000_000), 1
    yield "line of 8 kB", get(b"/" + b"%01" * 2600), 1
    yield "endless line", b"GET /" + b"a" * 100_000, 1
    yield "bare LF", b"GET /healthz HTTP/1.1\nHost: localhost\n\n", 1
    yield "bare CR", b"GET /healthz HTTP/1.1\rHost: localhost\r\r", 1
    yield "blank lines first", b"\r\n" * 2000 + get(b"/healthz"), 1
    yield "zeros", bytes(10_000), 1
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 1
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" * 1000, 1
    yield "PROXY", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get(b"/healthz"), 1
    yield "FastCGI", b"\x01\x01\x00\x01\x00\x08\x00\x00" + bytes(100), 1
    yield "silence", b"", 1


ODD_LINES = (
    *(
        b"GET /healthz",
        b"GET",
        b"",
        b" ",
        b"GET  /healthz HTTP/1.1",
        b"GET /healthz  HTTP/1.1",
        b"GET /healthz HTTP/1.1 x",
    ),
    *(
        b"GET\t/healthz\tHTTP/1.1",
        b" GET /healthz HTTP/1.1",
        b"get /healthz HTTP/1.1",
        b"GET /healthz http/1.1",
    ),
    *(
        b"GET /healthz HTTP/" + version
        for version in (b"0.9", b"1.2", b"2.0", b"1.", b"11", b"-1.1", b"1.1.1", b"9" * 50)
    ),
    *(
        method + b" /healthz HTTP/1.1"
        for method in (
            b"PUT",
            b"DELETE",
            b"PATCH",
            b"TRACE",
            b"OPTIONS",
            b"PROPFIND",
            b"A" * 500,
            b"G\x00T",
            b"\xff",
        )
    ),
    *(
        b"CONNECT localhost:22 HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"TRACE /metrics HTTP/1.1",
        b"GET * HTTP/1.1",
    ),
)


def odd_paths() -> Iterator[Stream]:
    """Yield paths that try to leave their folder, to hide, or to be another host's."""
    for path in ODD_PATHS:
        for method in (b"GET", b"POST"):
            yield (
                "path",
                get(path, b"Content-Length: 0\r\n" if method == b"POST" else b"", method),
                1,
            )


ODD_PATHS = (
    *(
        b"/../../etc/passwd",
        b"/samples/../../etc/passwd",
        b"/samples/..%2f..%2fetc/passwd",
        b"/samples/%2e%2e/%2e%2e/etc/passwd",
    ),
    *(
        b"/samples/..%5c..%5cetc",
        b"/samples/....//etc",
        b"/samples/street.jpg%00.png",
        b"/samples/%ff%fe",
        b"/samples/\xff\xfe",
    ),
    *(
        b"//healthz",
        b"///etc/passwd",
        b"/./healthz",
        b"/healthz/",
        b"/healthz;a=b",
        b"/healthz%20",
        b"/healthz?" + b"a" * 7000,
    ),
    *(
        b"http://evil.example/healthz",
        b"http://localhost:1/metrics",
        b"https://evil.example",
        b"file:///etc/passwd",
        b"evil.example:80",
    ),
    *(
        b"/%",
        b"/%4",
        b"/%zz",
        b"/%u0041",
        b"/a%0d%0aSet-Cookie:%20a=b",
        b'/a%C2%85{"level":"CRITICAL"}',
        b"/%e2%80%ae",
        b"/\x1b[31m",
    ),
    *(
        b"/.problem",
        b"/%2eproblem",
        b"//.problem",
        b"/metrics/",
        b"/METRICS",
        b"/metrics%2f",
        b"/v1/../metrics",
        b"/x/%2e%2e/metrics",
    ),
    *(
        b"/v1/models/" + b"a" * 7000,
        b"/v1/models/demo:predict:predict",
        b"/v1/models/%00:predict",
        b"/V1/MODELS/demo",
        b"/v2/models/demo/versions/" + b"1" * 5000,
    ),
    *(
        b"/page/" + b"0" * 64 + b"/../../x",
        b"/docs/../app/settings.py",
        b"/docs/%2e%2e%2findex.html",
        b"?",
        b"#",
        b"/#a",
        b"\\healthz",
    ),
)


def pipelined() -> Iterator[Stream]:
    """Yield several requests at once, right and wrong ones."""
    good = get(b"/healthz")
    yield "pipeline", good * 20, 20
    yield "long pipeline", good * 2000, 2000
    yield "pipeline of errors", get(b"/nothing") * 20, 20
    yield "pipeline, then none", good * 3 + b"\x00" * 100, 4
    yield "pipeline of posts", post(b"Content-Length: 5\r\n", b"hello") * 10, 10
    yield "pipeline of heads", get(b"/healthz", b"", b"HEAD") * 10, 10
    yield (
        "HTTP/1.0 kept",
        get(b"/healthz", b"Connection: keep-alive\r\n", version=b" HTTP/1.0") * 5,
        5,
    )
    yield "HTTP/0.9", b"GET /healthz\r\n" + good, 2
