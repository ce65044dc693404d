"""The settings: one table, read once from the environment.

``Settings.from_env`` is the only reader of ``SERVING_`` variables. Every field below is one row: its default,
parser (``app/setting_parsers.py``), unit and help. ``python -m app.settings`` prints the table that
docs/reference.md shows; ``python -m app.settings shell`` checks the environment and prints the values that shell
scripts need.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.keys import SCOPES
from app.setting_parsers import (
    addresses,
    auto_or,
    device,
    folder,
    host_names,
    hosts,
    model_name,
    networks,
    number,
    one_of,
    optional_file,
    origins,
    scopes,
    switch,
    versions,
    whole,
)
from app.system.machine import count_cores, total_memory

PREFIX = "SERVING_"
ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1024 * 1024
CLIENTS = {"SERVING_API_KEY"}  # not a setting: the key that scripts/predict sends
PAGES = frozenset({"docs", "page"})  # they hold nothing of the models
LEAST_BUDGET_MB = 64  # two bodies of the largest size, a picture of 12 megapixels


def row(default: str, parse: Callable[[str], Any], unit: str, text: str) -> Any:
    """Return a row of the table as a dataclass field."""
    return dataclasses.field(
        metadata={"default": default, "parse": parse, "unit": unit, "help": text}
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one server. None means ``auto``; ``environ`` has the given variables, for child processes."""

    models: Path = row(
        "models",
        folder(ROOT),
        "folder",
        "folder of models: `NAME/VERSION/model.pth`, or a bare model",
    )
    model: str = row(
        "",
        model_name,
        "name",
        "the one model to serve; empty: all of yours, or the demo if there is none",
    )
    models_file: Path | None = row(
        "",
        optional_file(ROOT),
        "file",
        "models, labels and traffic shares, in the form of TensorFlow Serving's model config (docs/models.md)",
    )
    versions: str = row(
        "latest:1",
        versions,
        "",
        "versions to serve: `latest:N`, `all`, or numbers such as `3,4`",
    )
    poll_s: float = row(
        "1",
        number(0, 3600),
        "s",
        "interval between scans of the models folder for new versions; 0: only on a reload",
    )
    device: str = row(
        "auto", device, "", "`auto`, `cpu`, `cuda` or `cuda:N`; auto uses a GPU if there is one"
    )
    workers: int | None = row(
        "auto",
        auto_or(whole(1, 64)),
        "processes",
        "worker processes; auto: as many as fit into memory and the cores can keep busy (`scripts/plan-workers`)",
    )
    threads: int | None = row(
        "auto",
        auto_or(whole(1, 256)),
        "threads",
        "CPU threads of one forward; auto: cores divided by workers",
    )
    decode_threads: int | None = row(
        "auto",
        auto_or(whole(1, 64)),
        "threads",
        "images decoded at once in a worker; auto: one per core, at most 4",
    )
    engine: str = row(
        "auto",
        one_of("auto", "openvino", "eager"),
        "",
        "engine on the CPU; auto: OpenVINO, or eager torch for models that OpenVINO cannot run",
    )
    precision: str = row(
        "auto",
        one_of("auto", "fp32", "tf32", "bf16", "fp16", "int8"),
        "",
        "auto: the fastest that `scripts/optimize` found to agree with fp32",
    )
    insist: bool = row(
        "off", switch, "", "`on` serves a precision that was not found to agree with fp32"
    )
    max_batch: int | None = row(
        "auto",
        auto_or(whole(1, 256)),
        "images",
        "largest batch of one forward; auto: 4 on the CPU, 64 on a GPU",
    )
    max_wait_ms: float = row(
        "2",
        number(0, 1000),
        "ms",
        "how long a batch waits for images that are being decoded; it waits for no others",
    )
    decode: str = row(
        "auto",
        one_of("auto", "exact", "fast"),
        "",
        "`exact` as the reference, `fast` within 2 of 255 except for large JPEGs; auto: fast if precision is reduced",
    )
    max_queue: int = row(
        "128", whole(1, 10_000), "requests", "requests in one worker; further ones are answered 429"
    )
    deadline_s: float = row(
        "30", number(0.1, 30), "s", "a request that takes longer is answered 504"
    )
    load_timeout_s: float = row(
        "300", number(1, 3600), "s", "a model that takes longer to load counts as failed"
    )
    max_body_mb: int = row(
        "32", whole(1, 32), "MiB", "largest request body; nginx itself refuses more than 32"
    )
    max_pixels: int = row(
        "50000000", whole(10_000, 500_000_000), "pixels", "largest image, width × height"
    )
    decode_memory_mb: int | None = row(
        "auto",
        auto_or(whole(LEAST_BUDGET_MB, 8192)),
        "MiB",
        "most memory that decoding one image may take; auto: 512, or an eighth of the memory if that is less",
    )
    max_bodies_mb: int | None = row(
        "auto",
        auto_or(whole(LEAST_BUDGET_MB, 16_384)),
        "MiB",
        "request bodies held at once in one worker; further ones wait or are answered 429; auto: 256, or a "
        "sixteenth of the memory if that is less",
    )
    answer_cache_mb: int = row(
        "0",
        whole(0, 16_384),
        "MiB",
        "answers to images sent before, kept in each worker and given without computing them again; 0: off "
        "(docs/tuning.md)",
    )
    url_hosts: tuple[str, ...] = row(
        "",
        hosts,
        "hosts",
        "hosts from which images may be fetched by URL: `images.example.org,*.example.org:8443`; empty: none",
    )
    url_timeout_s: float = row(
        "10", number(0.1, 30), "s", "an image that takes longer to fetch from its URL is an error"
    )
    memory_reserve_percent: int = row(
        "10",
        whole(0, 90),
        "%",
        "share of the memory of the host and of each GPU that workers leave free",
    )
    exif_rotate: bool = row(
        "off",
        switch,
        "",
        "`on` rotates images upright by their EXIF tag before they are resized; `/predict` has an option for it",
    )
    keys: Path | None = row(
        "",
        optional_file(ROOT),
        "file",
        "API keys (`scripts/keys`, docs/security.md); empty: no route needs one",
    )
    public: frozenset[str] | None = row(
        "auto",
        scopes,
        "scopes",
        "scopes that need no API key, such as `docs,page`, or `none`; auto: `docs,page`, without `SERVING_KEYS` all",
    )
    port: int = row("8999", whole(1, 65_535), "port", "the port that nginx listens on")
    host: tuple[str, ...] = row(
        "0.0.0.0",  # noqa: S104  (a server is there to be reached)
        addresses,
        "addresses",
        "addresses that nginx listens on, such as `127.0.0.1` or `0.0.0.0,::`",
    )
    direct_port: int = row(
        "10086",
        whole(1, 65_535),
        "port",
        "a port of 127.0.0.1 that Gunicorn listens on too, for diagnosis without nginx",
    )
    trusted_proxies: tuple[str, ...] = row(
        "",
        networks,
        "networks",
        "proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed (docs/deploy.md)",
    )
    allow: tuple[str, ...] = row(
        "",
        networks,
        "networks",
        "clients that may use the server, beside this machine; others are answered 403; empty: all",
    )
    deny: tuple[str, ...] = row(
        "",
        networks,
        "networks",
        "clients that are answered 403; of overlapping networks in both lists the smaller one decides",
    )
    metrics_from: tuple[str, ...] = row(
        "127.0.0.0/8,::1",
        networks,
        "networks",
        "clients that may read `/metrics` and the workers' states in `/readyz`",
    )
    hosts: tuple[str, ...] = row(
        "",
        host_names,
        "names",
        "names in `Host` that are answered, such as `*.example.org`; others get 421; empty: all (docs/security.md)",
    )
    cors_origins: tuple[str, ...] = row(
        "",
        origins,
        "origins",
        "web pages of other origins that may use the server: `https://app.example.org`; `*`: any",
    )
    run: Path = row(
        "run",
        folder(ROOT),
        "folder",
        "sockets, pid files, logs, metrics and manifest of a running server, which needs one of its own",
    )
    cache: Path = row(
        "",
        optional_file(ROOT),
        "folder",
        "for converted models if the models folder cannot be written; empty: `cache` in `SERVING_RUN`",
    )
    log_level: str = row(
        "INFO",
        one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`",
    )
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def public_scopes(self) -> frozenset[str]:
        """Scopes that need no API key."""
        if self.public is not None:
            return self.public
        return frozenset(SCOPES) if self.keys is None else PAGES

    @property
    def max_body_bytes(self) -> int:
        """Largest request body, in bytes."""
        return self.max_body_mb * MEGABYTE

    @property
    def decode_memory_bytes(self) -> int:
        """Most memory that decoding one image may take, in bytes."""
        return (self.decode_memory_mb or share_of_memory(512, 8)) * MEGABYTE

    @property
    def max_bodies_bytes(self) -> int:
        """Largest sum of the request bodies held at once in a worker, in bytes."""
        return (self.max_bodies_mb or share_of_memory(256, 16)) * MEGABYTE

    @property
    def answer_cache_bytes(self) -> int:
        """Largest answer cache of a worker, in bytes; 0 is off."""
        return self.answer_cache_mb * MEGABYTE

    @property
    def decode_pool_size(self) -> int:
        """Images decoded at once in a worker."""
        return self.decode_threads or min(4, count_cores())

    @property
    def listen(self) -> tuple[str, ...]:
        """Addresses with port that nginx listens on, in nginx' form: ``0.0.0.0:8999``, ``[::]:8999``."""
        return tuple(format_address(host, self.port) for host in self.host)

    @property
    def url(self) -> str:
        """URL of this server for programs on the same machine."""
        return f"http://{format_address(self.local_host, self.port)}"

    @property
    def local_host(self) -> str:
        """IP address at which programs on the same machine reach nginx."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host[0], self.host[0])  # noqa: S104

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Parse the settings.

        Raises:
            SettingsError: a value is outside its range or a ``SERVING_`` name is unknown; the text
                has one line for each fault, and all faults at once.
        """
        rows = {PREFIX + field.name.upper(): field for field in table_rows()}
        faults = [
            f"{name} is not a setting; docs/reference.md has them"
            for name in sorted(environ)
            if name.startswith(PREFIX) and name not in rows.keys() | CLIENTS
        ]
        values = {}
        for name, field in rows.items():
            text = environ.get(name, field.metadata["default"])
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError as error:
                faults.append(f"{name}={text!r}: {error}")
        for network in sorted({*values.get("allow", ())} & {*values.get("deny", ())}):
            faults.append(f"{network} is in SERVING_ALLOW and in SERVING_DENY")
        if not values.get("cache") and "run" in values:
            values["cache"] = values["run"] / "cache"
        if faults:
            raise SettingsError("\n".join(faults))
        given = {name: text for name, text in environ.items() if name in rows}
        return cls(**values, environ=given)


def format_address(host: str, port: int) -> str:
    """Return an IP address and a port as a URL has them: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def table_rows() -> list[dataclasses.Field[Any]]:
    """Return the fields of Settings that are rows of the table."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]


def share_of_memory(most: int, part: int) -> int:
    """Return a budget in MiB: ``most``, or the memory divided by ``part`` if that is less; at least 64."""
    return max(LEAST_BUDGET_MB, min(most, total_memory() // part // MEGABYTE))


def format_table() -> str:
    """Return the settings as the Markdown table of docs/reference.md."""
    lines = ["| variable | default | unit | what it does |", "|---|---|---|---|"]
    for field in table_rows():
        default = f"`{field.metadata['default']}`" if field.metadata["default"] else "empty"
        unit, text = field.metadata["unit"], field.metadata["help"]
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {unit} | {text} |")
    return "\n".join(lines)


def format_shell(settings: Settings) -> str:
    """Return the settings that scripts need, as assignments of POSIX shell; paths are absolute."""
    values = {
        "SERVING_RUN": str(settings.run),
        "SERVING_PORT": str(settings.port),
        "LOCAL_HOST": settings.local_host,
    }
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())


def main(arguments: list[str]) -> None:
    """Print the table; with ``shell`` check the environment and print assignments for scripts."""
    if arguments != ["shell"]:
        print(format_table())
        return
    try:
        print(format_shell(Settings.from_env(os.environ)))
    except SettingsError as error:
        sys.exit(f"the settings cannot be used:\n{error}")


if __name__ == "__main__":
    main(sys.argv[1:])
