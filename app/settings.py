"""The settings: one table, read once from the environment.

``Settings.from_env`` is the only reader of ``SERVING_`` variables. Every field below is one row:
its default, how its text is read, its unit and its help. ``python -m app.settings`` prints the
table that docs/reference.md shows; ``python -m app.settings shell`` checks the environment and prints
the values that shell scripts need.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.names import name_problem
from app.system.cgroup import cpu_quota, memory_limits

PREFIX = "SERVING_"
ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1024 * 1024
LEAST_BUDGET_MB = 64  # two bodies of the largest size, a picture of 12 megapixels


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within least..most."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a reader of decimal numbers within least..most."""

    def read(text: str) -> float:
        if not re.fullmatch(r"-?\d+(\.\d+)?", text) or not least <= float(text) <= most:
            raise ValueError(f"expected a number from {least:g} to {most:g}")
        return float(text)

    return read


def auto_or(read: Callable[[str], int]) -> Callable[[str], int | None]:
    """Return a reader that takes ``auto`` (None) beside what ``read`` takes."""

    def read_auto(text: str) -> int | None:
        try:
            return None if text == "auto" else read(text)
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None

    return read_auto


def switch(text: str) -> bool:
    """Read ``on`` or ``off``."""
    return one_of("on", "off")(text) == "on"


def device(text: str) -> str:
    """Read ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of one of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")
        return text

    return read


def folder(text: str) -> Path:
    """Read a path; a relative one counts from the project's root."""
    return ROOT / text


def optional_file(text: str) -> Path | None:
    """Read a path, or nothing."""
    return folder(text) if text else None


def model_name(text: str) -> str:
    """Read a model's name: a folder's name, or empty for none."""
    if text and (problem := name_problem(text)):
        raise ValueError(f"it {problem}")
    return text


def versions(text: str) -> str:
    """Read a version policy; ``app/control/repository.py`` knows what it means."""
    if not re.fullmatch(r"latest:[1-9]\d{0,2}|all|[1-9]\d{0,17}(,[1-9]\d{0,17})*", text):
        raise ValueError("expected latest:N, all, or version numbers such as 3,4")
    return text


def hosts(text: str) -> tuple[str, ...]:
    """Read a list of hosts; ``app/web/input/urls.py`` knows what they allow."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for host in found:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.-]+(:\d{1,5})?", host):
            raise ValueError(
                f"expected hosts such as images.example.org or *.example.org:8443, found {host!r}"
            )
    return found


def addresses(text: str) -> tuple[str, ...]:
    """Read a list of IP addresses."""
    found = tuple(part.strip() for part in text.split(","))
    for address in found:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(
                f"expected IP addresses such as 127.0.0.1 or 0.0.0.0,::, found {address!r}"
            ) from None
    return found


def row(default: str, read: Callable[[str], Any], unit: str, text: str) -> Any:
    """Return one row of the table as a dataclass field."""
    return dataclasses.field(
        metadata={"default": default, "read": read, "unit": unit, "help": text}
    )


@dataclass(frozen=True)
class Settings:
    """What an operator can choose. None means ``auto``; ``environ`` is what it was read from, for child processes."""

    models: Path = row(
        "models",
        folder,
        "folder",
        "where the models are: `NAME/VERSION/model.pth`, or a bare model",
    )
    model: str = row(
        "",
        model_name,
        "name",
        "the one model to serve; empty: all of yours, or the demo where there is none",
    )
    models_file: Path | None = row(
        "",
        optional_file,
        "file",
        "several models, labels and traffic shares, as TensorFlow Serving's model config (docs/models.md)",
    )
    versions: str = row(
        "latest:1",
        versions,
        "",
        "which versions to serve: `latest:N`, `all`, or numbers such as `3,4`",
    )
    poll_s: float = row(
        "1",
        number(0, 3600),
        "s",
        "how often the models folder is looked at for new versions; 0: only on a reload",
    )
    device: str = row(
        "auto", device, "", "`auto`, `cpu`, `cuda` or `cuda:N`; auto takes a GPU where there is one"
    )
    workers: int | None = row(
        "auto",
        auto_or(whole(1, 64)),
        "processes",
        "model copies; auto: as many as memory holds and the cores are worth (`scripts/plan-workers`)",
    )
    threads: int | None = row(
        "auto",
        auto_or(whole(1, 256)),
        "threads",
        "CPU threads of one forward; auto: the cores over the workers",
    )
    decode_threads: int | None = row(
        "auto",
        auto_or(whole(1, 64)),
        "threads",
        "pictures decoded at once in a worker; auto: as many as cores, up to 4",
    )
    engine: str = row(
        "auto",
        one_of("auto", "openvino", "eager"),
        "",
        "what runs on the CPU; auto: OpenVINO, or eager torch where it cannot",
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
        "the most pictures in one forward; auto: 4 on the CPU, 64 on a GPU",
    )
    max_wait_ms: float = row(
        "2",
        number(0, 1000),
        "ms",
        "how long a batch waits for pictures that are being decoded; never for others",
    )
    decode: str = row(
        "auto",
        one_of("auto", "exact", "fast"),
        "",
        "`exact` as the reference, `fast` within 2 of 255, large JPEGs less; auto: fast where precision is reduced",
    )
    max_queue: int = row(
        "128", whole(1, 10_000), "requests", "requests inside one worker; one more is answered 429"
    )
    deadline_s: float = row(
        "30", number(0.1, 30), "s", "a request that is not answered by then is answered 504"
    )
    load_timeout_s: float = row(
        "300", number(1, 3600), "s", "a model that is not ready by then counts as failed"
    )
    max_body_mb: int = row(
        "32", whole(1, 32), "MiB", "largest request body; nginx refuses more than 32 itself"
    )
    max_pixels: int = row(
        "50000000", whole(10_000, 500_000_000), "pixels", "largest picture, width × height"
    )
    decode_memory_mb: int | None = row(
        "auto",
        auto_or(whole(LEAST_BUDGET_MB, 8192)),
        "MiB",
        "largest memory that decoding one image may take; auto: 512, or an eighth of the memory where that is less",
    )
    max_bodies_mb: int | None = row(
        "auto",
        auto_or(whole(LEAST_BUDGET_MB, 16_384)),
        "MiB",
        "request bodies held at once in one worker; one more waits or is answered 429; auto: 256, or a "
        "sixteenth of the memory where that is less",
    )
    url_hosts: tuple[str, ...] = row(
        "",
        hosts,
        "hosts",
        "where pictures may be fetched from by URL: `images.example.org,*.example.org:8443`; empty: nowhere",
    )
    url_timeout_s: float = row(
        "10", number(0.1, 30), "s", "a picture that is not fetched from its URL by then is an error"
    )
    memory_reserve_percent: int = row(
        "10", whole(0, 90), "%", "memory of the host and of each GPU that workers leave free"
    )
    exif_rotate: bool = row(
        "off",
        switch,
        "",
        "`on` turns photographs upright by their EXIF tag before they are resized",
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
    run: Path = row(
        "run",
        folder,
        "folder",
        "sockets, pid files, logs, metrics and manifest of a running server, which needs one of its own",
    )
    cache: Path = row(
        "",
        optional_file,
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
    def max_body_bytes(self) -> int:
        """Largest request body, in bytes."""
        return self.max_body_mb * MEGABYTE

    @property
    def decode_memory_bytes(self) -> int:
        """Largest memory that decoding one image may take, in bytes."""
        return (self.decode_memory_mb or share_of_memory(512, 8)) * MEGABYTE

    @property
    def max_bodies_bytes(self) -> int:
        """Request bodies held at once in a worker, in bytes."""
        return (self.max_bodies_mb or share_of_memory(256, 16)) * MEGABYTE

    @property
    def decode_pool_size(self) -> int:
        """Pictures decoded at once in a worker."""
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
        """Read the settings.

        Raises:
            SettingsError: a value is outside its range or a ``SERVING_`` name is unknown; the text
                has one line for each fault, and all faults at once.
        """
        rows = {PREFIX + field.name.upper(): field for field in table_rows()}
        faults = [
            f"{name} is not a setting; docs/reference.md has them"
            for name in sorted(environ)
            if name.startswith(PREFIX) and name not in rows
        ]
        values = {}
        for name, field in rows.items():
            text = environ.get(name, field.metadata["default"])
            try:
                values[field.name] = field.metadata["read"](text)
            except ValueError as error:
                faults.append(f"{name}={text!r}: {error}")
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
    """Return the fields that are rows of the table."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]


def count_cores() -> int:
    """Return the CPU cores that this process may keep busy: the affinity mask, and its control groups' quota.

    A fraction is rounded down (1.5 → 1): two threads that compute would use up each period's time before it is
    over, and then everything stands still, the hub too; what is left over is for the hub.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def share_of_memory(most: int, part: int) -> int:
    """Return MiB for requests: ``most``, or one of so many parts of the memory where that is less, at least 64."""
    return max(LEAST_BUDGET_MB, min(most, total_memory() // part // MEGABYTE))


@functools.cache  # the budgets that were planned with stay
def total_memory() -> int:
    """Return the bytes of this machine's memory, or of its container's where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit.total for limit in memory_limits())])


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
        "LISTEN": " ".join(settings.listen),
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
