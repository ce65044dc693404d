"""Images by URL, if the operator allows it: only from listed hosts, never from a private network.

Fetching URLs of clients opens the network behind the server to them (SSRF). So for each URL, and again for
each redirect: the scheme is http or https; the host and port are on the operator's list; every address that
the name resolves to is public; and the connection goes to the checked address, so that the name cannot resolve
to another one in between. Size, time, redirects and the number of connections are bounded.

It runs on the hub: gevent's sockets wait without blocking it. Names are looked up on a thread pool of its own,
so that a slow name server blocks nothing else. All fetches of a request share one deadline, which includes
the wait for a connection, and no request gets more than its share of the connections.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from http.client import HTTPException
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

import gevent
import urllib3
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from app.errors import FetchFailed, ServingError, UrlRefused
from app.web.input.fetch_errors import explain_fetch

PORTS = {"http": 80, "https": 443}
AT_ONCE = 32  # connections of one worker
SHARE = 8  # of them for one request
LOOKUPS = 8  # names that are looked up at once
MAX_REDIRECTS = 3
MAX_URL = 8192  # characters; what servers commonly take
CHUNK_BYTES = 64 * 1024
CHUNKS_IN_A_ROW = 16  # before other greenlets run, however fast the chunks come
SHOWN = 200  # characters of a URL in an error text
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Expected errors of a fetch: unknown name, invalid HTTP, negative length.
ERRORS = (OSError, ValueError, HTTPException, urllib3.exceptions.HTTPError)

# Addresses outside the public internet, by IANA's registries of special-purpose addresses; Python's own table
# differs between releases.
SPECIAL = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's own services inside each machine
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # IETF protocols, Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside, which may be a private one
        "3fff::/20",  # documentation
    )
]
UNICAST = ipaddress.ip_network("2000::/3")  # all that is public in IPv6
ISATAP = (0x5EFE, 0x0200_5EFE)  # bits 32 to 63 of an address with an IPv4 address inside (RFC 5214)

look_up = get_original("socket", "getaddrinfo")  # gevent's takes threads of the shared pool
logger = logging.getLogger(__name__)


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet."""
    found: IPv4Address | IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found not in UNICAST or int(found) >> 32 & 0xFFFF_FFFF in ISATAP:
            return False
    return not any(found in network for network in SPECIAL)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of all fetches; loading the certificates takes 50 ms."""
    return ssl.create_default_context()


class Fetcher:
    """Fetches images. Public methods run on the hub's thread."""

    def __init__(
        self,
        hosts: Sequence[str],
        max_bytes: int,
        timeout_s: float,
        may_connect: Callable[[str], bool] = is_public,
    ) -> None:
        """Create a fetcher.

        Args:
            hosts: ``images.example.org``, ``*.example.org`` (any host below it), or either with a port,
                ``example.org:8080``; by default the port of the scheme. Empty: URLs are off.
            max_bytes: limit of all images of one request together.
            timeout_s: limit for all images of one request, with redirects and the wait for a connection.
            may_connect: returns whether connecting to an IP address is allowed.
        """
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._may_connect = may_connect
        self._connections = BoundedSemaphore(AT_ONCE)
        self._lookups = ThreadPool(LOOKUPS)  # starts no thread before it is used
        if hosts:
            tls_context()  # now, not while others wait

    def fetch_all(
        self, urls: Sequence[str], headers: Mapping[str, str] = NO_HEADERS
    ) -> list[BinaryIO | ServingError]:
        """Fetch URLs side by side; the error of one (``UrlRefused``, ``FetchFailed``) is returned in its place.

        Args:
            urls: the URLs.
            headers: further headers of every request, redirected ones too.
        """
        left, share = [self._max_bytes], BoundedSemaphore(SHARE)
        until = time.monotonic() + self._timeout_s
        greenlets = [gevent.spawn(self._fetch, url, headers, left, share, until) for url in urls]
        try:
            gevent.joinall(greenlets)
        finally:
            gevent.killall(greenlets, block=False)
        return [
            greenlet.exception.with_traceback(None)
            if isinstance(greenlet.exception, ServingError)
            else greenlet.get()
            for greenlet in greenlets
        ]

    def _fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        left: list[int],
        share: BoundedSemaphore,
        until: float,
    ) -> BinaryIO:
        """Fetch one URL.

        Args:
            url: the URL.
            headers: further headers.
            left: bytes that the request may still fetch.
            share: connections that the request may still open.
            until: deadline of the request, monotonic seconds.

        Raises:
            UrlRefused: the URL is not allowed.
            FetchFailed: it cannot be fetched.
        """
        too_late = FetchFailed(f"{shown(url)} took longer than {self._timeout_s:g} s")
        try:
            self._check(url)  # a refused URL takes no connection
            left_s = max(0.0, until - time.monotonic())
            with gevent.Timeout(left_s, too_late), share, self._connections:
                return self._follow(url, headers, left)
        except ServingError:
            raise
        except ERRORS as error:
            failure = FetchFailed(f"{shown(url)} cannot be fetched: {explain_fetch(error)}")
        except Exception as error:
            logger.error("a fetch failed in an unexpected way", exc_info=error)
            failure = FetchFailed(f"{shown(url)} cannot be fetched")
        raise failure  # outside of the handlers: its context would hold the fetched bytes

    def _follow(self, url: str, headers: Mapping[str, str], left: list[int]) -> BinaryIO:
        """Return the file at a URL, after redirects."""
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            parts, port = self._check(at)
            with connect(parts, port, self._resolve(parts, port)) as connections:
                response = self._ask(connections, parts, headers)
                try:
                    if response.status == 200:
                        return read_bounded(response, url, left, self._max_bytes)
                finally:
                    response.close()
            location = response.headers.get("Location")
            if not 300 <= response.status < 400 or not location:
                raise FetchFailed(f"{shown(url)} is answered with the status {response.status}")
            at = urljoin(at, location)
            if parts.scheme == "https" and urlsplit(at).scheme == "http":
                raise UrlRefused(f"{shown(url)} is redirected from https to http")
        raise FetchFailed(f"{shown(url)} has more than {MAX_REDIRECTS} redirects")

    def _ask(
        self,
        connections: urllib3.HTTPConnectionPool,
        parts: SplitResult,
        headers: Mapping[str, str],
    ) -> urllib3.BaseHTTPResponse:
        """Send the request and return the response, its body unread."""
        return connections.urlopen(
            "GET",
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            headers={
                "Host": parts.netloc,
                "Accept": "image/*",
                "User-Agent": "resnet-serving",
                **headers,
            },
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout_s,
        )

    def _check(self, url: str) -> tuple[SplitResult, int]:
        """Return the parts and the port of a URL. Raises UrlRefused."""
        if not self._hosts:
            raise UrlRefused("pictures by URL are off here: send the file, or its base64")
        if len(url) > MAX_URL:
            raise UrlRefused(
                f"{shown(url)} has {len(url):,} characters; a URL has at most {MAX_URL:,}"
            )
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise UrlRefused(f"{shown(url)} is no URL: {error}") from error
        if parts.scheme not in PORTS:
            raise UrlRefused(f"{shown(url)} is neither http nor https")
        host = (parts.hostname or "").removesuffix(".")
        if not is_plain(host) or parts.username is not None or not url.isprintable():
            raise UrlRefused(f"{shown(url)} needs a plain host, in ASCII, without a user's name")
        if not any(matches(host, port, rule, parts.scheme) for rule in self._hosts):
            raise UrlRefused(f"{shown(url)}: the host is not on this server's list")
        return parts, port

    def _resolve(self, parts: SplitResult, port: int) -> str:
        """Return an address of a URL's host. Raises UrlRefused unless all its addresses are allowed."""
        found = self._lookups.apply(find_addresses, (parts.hostname, port))
        if isinstance(found, Exception):
            raise found
        addresses = [str(entry[4][0]) for entry in found]
        if not all(self._may_connect(address) for address in addresses):
            raise UrlRefused(f"{shown(parts.geturl())}: the host has an address that is not public")
        return addresses[0]


def is_plain(host: str) -> bool:
    """Return whether a host is an address or a valid host name in ASCII."""
    return (
        host.isascii() and len(host) < 254 and all(0 < len(part) < 64 for part in host.split("."))
    )


def find_addresses(host: str | None, port: int) -> Any:
    """Resolve a host. Returns errors instead of raising: gevent prints exceptions of its threads."""
    try:
        return look_up(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        return error


def connect(parts: SplitResult, port: int, address: str) -> urllib3.HTTPConnectionPool:
    """Return a connection pool to an address; with https its certificate must match the URL's host."""
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(address, port)
    return urllib3.HTTPSConnectionPool(
        address,
        port,
        ssl_context=tls_context(),
        server_hostname=parts.hostname,
        assert_hostname=parts.hostname,
    )


def read_bounded(
    response: urllib3.BaseHTTPResponse, url: str, left: list[int], limit: int
) -> BinaryIO:
    """Return the body. Raises FetchFailed if the images of the request exceed the limit."""
    file = io.BytesIO()
    for count, piece in enumerate(response.stream(CHUNK_BYTES), 1):
        left[0] -= len(piece)
        if left[0] < 0:
            raise FetchFailed(
                f"{shown(url)} makes the request's pictures larger than the limit of {limit:,} bytes"
            )
        file.write(piece)
        if count % CHUNKS_IN_A_ROW == 0:
            gevent.sleep(0)
    file.seek(0)
    return file


def matches(host: str, port: int, rule: str, scheme: str) -> bool:
    """Return whether a rule of the list allows a host and port."""
    name, _, number = rule.lower().partition(":")
    if port != (int(number) if number else PORTS[scheme]):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def shown(url: str) -> str:
    """Return a URL as error texts have it."""
    return repr(url if len(url) <= SHOWN else url[:SHOWN] + "…")
