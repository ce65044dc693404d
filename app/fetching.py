"""Pictures by URL, for operators who allow it: only from hosts that they name, never from a private network.

A server that fetches what a client names is a door into the network behind it. So for each URL, and
again for each redirect: the scheme is http or https; the host and port are on the operator's list;
every address that its name resolves to is a public one; and the connection goes to the address that
was checked, so that a name cannot resolve to another one in between. Size, time, redirects and the
number of connections are bounded.

It runs on the hub: gevent's sockets wait without holding it up.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

import gevent
import urllib3
from gevent.pool import Pool

from app.errors import FetchFailed, ServingError, UrlRefused

PORTS = {"http": 80, "https": 443}
AT_ONCE = 16  # connections of one worker
MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
SHOWN = 200  # characters of a URL that an error repeats
# Addresses that carry an IPv4 address inside, which may be a private one (NAT64, RFC 6052).
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet, by IANA's registries as ``ipaddress`` has them."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found.sixtofour or found.teredo or found in TRANSLATED:
            return False
    return found.is_global and not found.is_multicast


class Fetcher:
    """Fetches pictures. Public methods run on the hub's thread."""

    def __init__(
        self,
        hosts: Sequence[str],
        max_bytes: int,
        timeout_s: float,
        may_connect: Callable[[str], bool] = is_public,
    ) -> None:
        """Take the rules.

        Args:
            hosts: ``images.example.org``, ``*.example.org`` (any host below it), or either with a port,
                ``example.org:8080``; without one the scheme's own port is meant. None: URLs are off.
            max_bytes: of all the pictures of one request together.
            timeout_s: for one picture, redirects included.
            may_connect: tells whether an IP address may be connected to.
        """
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._may_connect = may_connect
        self._pool = Pool(AT_ONCE)

    def fetch_all(self, urls: Sequence[str]) -> list[BinaryIO | ServingError]:
        """Fetch side by side; one's error (``UrlRefused``, ``FetchFailed``) is returned in its place."""
        left = [self._max_bytes]
        waiting = [self._pool.spawn(self._fetch, url, left) for url in urls]
        try:
            return [greenlet.get() for greenlet in waiting]
        finally:
            gevent.killall(waiting, block=False)

    def _fetch(self, url: str, left: list[int]) -> BinaryIO | ServingError:
        """Fetch one; ``left`` holds the bytes that the request may still take."""
        too_late = FetchFailed(f"{shown(url)} took longer than {self._timeout_s:g} s")
        try:
            with gevent.Timeout(self._timeout_s, too_late):
                return io.BytesIO(self._follow(url, left))
        except ServingError as error:
            return error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            return FetchFailed(f"{shown(url)} cannot be fetched: {type(error).__name__}")

    def _follow(self, url: str, left: list[int]) -> bytes:
        """Return what lies at a URL, after redirects."""
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            parts, port = self._check(at)
            connections = connect(parts, port, self._resolve(parts, port))
            with connections:
                response = connections.urlopen(
                    "GET",
                    parts._replace(scheme="", netloc="", fragment="").geturl() or "/",
                    headers={
                        "Host": parts.netloc,
                        "Accept": "image/*",
                        "User-Agent": "resnet-serving",
                    },
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=self._timeout_s,
                )
                if response.status == 200:
                    return read_bounded(response, url, left, self._max_bytes)
            location = response.headers.get("Location")
            if not 300 <= response.status < 400 or not location:
                raise FetchFailed(f"{shown(url)} is answered with the status {response.status}")
            at = urljoin(at, location)
        raise FetchFailed(f"{shown(url)} has more than {MAX_REDIRECTS} redirects")

    def _check(self, url: str) -> tuple[SplitResult, int]:
        """Return a URL's parts and port, or raise UrlRefused."""
        if not self._hosts:
            raise UrlRefused("pictures by URL are off here: send the file, or its base64")
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise UrlRefused(f"{shown(url)} is no URL: {error}") from error
        if parts.scheme not in PORTS:
            raise UrlRefused(f"{shown(url)} is neither http nor https")
        host = (parts.hostname or "").rstrip(".")
        if not host.isascii() or not host or parts.username is not None or not url.isprintable():
            raise UrlRefused(f"{shown(url)} needs a plain host, in ASCII, without a user's name")
        if not any(matches(host, port, rule, parts.scheme) for rule in self._hosts):
            raise UrlRefused(f"{shown(url)}: the host is not on this server's list")
        return parts, port

    def _resolve(self, parts: SplitResult, port: int) -> str:
        """Return an address of a URL's host; raise UrlRefused unless each of them may be connected to."""
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not all(self._may_connect(address) for address in addresses):
            raise UrlRefused(f"{shown(parts.geturl())}: the host has an address that is not public")
        return addresses[0]


def connect(parts: SplitResult, port: int, address: str) -> urllib3.HTTPConnectionPool:
    """Return a pool of connections to that address, which must prove to be the URL's host where it is https."""
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(address, port)
    return urllib3.HTTPSConnectionPool(
        address,
        port,
        ssl_context=ssl.create_default_context(),
        server_hostname=parts.hostname,
        assert_hostname=parts.hostname,
    )


def read_bounded(
    response: urllib3.BaseHTTPResponse, url: str, left: list[int], limit: int
) -> bytes:
    """Return a body, or raise FetchFailed where the request's pictures become larger than the limit."""
    pieces = []
    for piece in response.stream(CHUNK_BYTES):
        left[0] -= len(piece)
        if left[0] < 0:
            raise FetchFailed(
                f"{shown(url)} makes the request's pictures larger than the limit of {limit:,} bytes"
            )
        pieces.append(piece)
    return b"".join(pieces)


def matches(host: str, port: int, rule: str, scheme: str) -> bool:
    """Tell whether a rule of the list allows a host and port."""
    name, _, number = rule.lower().partition(":")
    if port != (int(number) if number else PORTS[scheme]):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def shown(url: str) -> str:
    """Return a URL as an error repeats it."""
    return repr(url if len(url) <= SHOWN else url[:SHOWN] + "…")
