"""The files that conf/nginx.conf includes from the runtime folder, made from the settings.

conf/nginx.conf has all rules; these files have the values that an operator sets. Every file exists with every setting,
so that conf/nginx.conf includes the same files always.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.settings import Settings
from app.system.files import write_file

FOLDER = "nginx"  # in the runtime folder


def write_includes(settings: Settings) -> Path:
    """Write the files, each atomically, and return their folder. Raises OSError."""
    folder = settings.run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_includes(settings).items():
        write_file(folder / name, text)
    return folder


def render_includes(settings: Settings) -> dict[str, str]:
    """Return the text of each file by its name."""
    return {"listen.conf": render_listen(settings)}


def render_listen(settings: Settings) -> str:
    """Return the addresses that nginx listens on."""
    return join_lines(f"listen {address};" for address in settings.listen)


def join_lines(lines: Iterable[str]) -> str:
    """Return lines as one text."""
    return "".join(f"{line}\n" for line in lines)
