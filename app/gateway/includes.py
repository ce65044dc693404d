"""The files that conf/nginx.conf includes from the runtime folder, made from the settings.

conf/nginx.conf has the rules; these files have what an operator sets, as values of nginx's variables. Every file is
written with every setting, so that conf/nginx.conf always includes the same ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Set

from app.errors import KeyFileError
from app.keys import Key, read_keys
from app.settings import Settings
from app.system.files import write_file

FOLDER = "nginx"  # in the runtime folder
EVERYBODY = ("0.0.0.0/0", "::/0")
THIS_MACHINE = ("127.0.0.0/8", "::1/128")


def write_includes(settings: Settings) -> None:
    """Write the files, each atomically. Raises OSError."""
    folder = settings.run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_includes(settings).items():
        write_file(folder / name, text)
    write_keys(settings)


def write_keys(settings: Settings) -> str:
    """Write what nginx knows of the API keys, and return it. Raises OSError.

    If the keys cannot be read, an earlier file stays as it is: the application decides on every key anyway.
    """
    path = settings.run / FOLDER / "keys.conf"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        keys = read_keys(settings.keys).values() if settings.keys else ()
    except KeyFileError:
        if before:
            return before
        keys = ()
    text = render_keys(keys, settings.public_scopes)
    if text != before:
        write_file(path, text)
    return text


def render_includes(settings: Settings) -> dict[str, str]:
    """Return the text of each file by its name."""
    return {
        "listen.conf": render_listen(settings),
        "proxies.conf": render_proxies(settings),
        "clients.conf": render_clients(settings),
        "hosts.conf": render_hosts(settings),
        "origins.conf": render_origins(settings),
    }


def render_listen(settings: Settings) -> str:
    """Return the addresses that nginx listens on."""
    return join_lines(f"listen {address};" for address in settings.listen)


def render_proxies(settings: Settings) -> str:
    """Return $from_proxy (0 or 1), and whose X-Forwarded-For replaces the address of the connection.

    With real_ip_recursive the client is the rightmost address that is no listed proxy: what stands to its left
    is only the client's own word.
    """
    trusted = settings.trusted_proxies
    rules = dict.fromkeys(EVERYBODY, "0") | dict.fromkeys(trusted, "1")
    lines = [f"set_real_ip_from {network};" for network in trusted]
    if trusted:
        lines += ["real_ip_header X-Forwarded-For;", "real_ip_recursive on;"]
    return render_block("geo $realip_remote_addr $from_proxy", rules) + join_lines(lines)


def render_clients(settings: Settings) -> str:
    """Return $client_rule (allowed, refused, own or own_only) and $operator_address (0, 1 or own).

    This machine is "own": such an address counts only if no proxy that is not listed stands before it. With a list of
    allowed clients it is "own_only": whoever comes through such a proxy is refused.
    """
    base, own = ("refused", "own_only") if settings.allow else ("allowed", "own")
    rules = dict.fromkeys(EVERYBODY, base) | dict.fromkeys(THIS_MACHINE, own)
    rules |= dict.fromkeys(settings.allow, "allowed") | dict.fromkeys(settings.deny, "refused")
    operators = dict.fromkeys(EVERYBODY, "0")
    for network in settings.metrics_from:
        operators[network] = "own" if ipaddress.ip_network(network).is_loopback else "1"
    return render_block("geo $client_rule", rules) + render_block(
        "geo $operator_address", operators
    )


def render_hosts(settings: Settings) -> str:
    """Return $known_host (0 or 1): whether the request's Host is on the list.

    IP addresses and localhost always are: probes use them, and only a name can be pointed to another address. A request
    without a host comes from no browser.
    """
    if not settings.hosts:
        return render_block("map $host $known_host", {"default": "1"})
    always = ('""', "localhost", r'"~^[0-9.]+$"', r'"~^\["')
    # With a backslash no name is one of nginx's own words, such as "default".
    names = (rf"\{name}" for name in settings.hosts)
    rules = {"default": "0"} | dict.fromkeys((*always, *names), "1")
    return render_block("map $host $known_host", rules, "hostnames;")


def render_origins(settings: Settings) -> str:
    """Return $cors_origin, the request's Origin if it is on the list, $cors_vary and $resource_policy."""
    rules = {"default": '""'}
    for origin in settings.cors_origins:
        key = '"~^https?://"' if origin == "*" else f'"{origin}"'
        rules[key] = "$http_origin"
    vary, policy = ("Origin", "cross-origin") if settings.cors_origins else ('""', "same-site")
    return (
        render_block("map $http_origin $cors_origin", rules)
        + render_block("map $http_origin $cors_vary", {"default": vary})
        + render_block("map $http_origin $resource_policy", {"default": policy})
    )


def render_keys(keys: Iterable[Key], public: Set[str]) -> str:
    """Return $key_client, the client whose API key has the request's id, and $needs_key for uploads."""
    clients = {"default": '""'} | {key.id: key.name for key in keys}
    paths = {"default": "0"} | {
        f'"~*^POST /{path}"': str(int(scope not in public))
        for path, scope in (
            ("v2/repository/models/", "admin"),
            ("v2/repository/", "read"),
            ("(predict|model_predict|v1/|v2/)", "predict"),
        )
    }
    return render_block("map $key_id $key_client", clients) + render_block(
        'map "$request_method $uri" $needs_key', paths
    )


def render_block(head: str, rules: Mapping[str, str], *first: str) -> str:
    """Return a block of nginx with one line for each rule."""
    lines = [*first, *(f"{key} {value};" for key, value in rules.items())]
    return f"{head} {{\n" + join_lines(f"    {line}" for line in lines) + "}\n"


def join_lines(lines: Iterable[str]) -> str:
    """Return lines as one text."""
    return "".join(f"{line}\n" for line in lines)
