"""The watcher of the models folder, a program beside Gunicorn: ``python -m app.commands.watch``.

It checks, converts and measures new versions, in processes of its own and at low priority, and writes
the manifest that the workers follow. Without it the server continues with its current versions.
"""

from __future__ import annotations

import logging.config
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from app.control.cleanup import clean_up
from app.control.manifest import Entry, Manifest, ManifestFile
from app.control.scanner import RepositoryScanner
from app.gateway.includes import write_keys
from app.keys import CHECK_S
from app.logs import logging_config, warn_once
from app.settings import Settings

# A conversion must not take the cores from the workers, nor starve while they are busy.
NICENESS = 10
CLEANUP_S = 3600  # between two removals of unused derived files
MAX_PAUSE_S = 300
TROUBLE = "new versions cannot be taken over, what is served goes on; tried again at pauses of up to %d s: %s"

logger = logging.getLogger("watch")


def watch(settings: Settings) -> None:
    """Scan periodically, for ever. An error is logged once and retried at growing pauses."""
    file = ManifestFile(settings.run)
    # Gunicorn's master writes the first manifest. One that an earlier start left is ignored: its models folder may
    # have been another.
    while (manifest := file.read_current()) is None:
        time.sleep(settings.poll_s)
    scanner = RepositoryScanner(settings, manifest)
    cleaned_at, pause, trouble = 0.0, settings.poll_s, ""
    while True:
        try:
            manifest = file.read_current() or manifest  # the master may have written another
            manifest = scan_once(scanner, file, manifest)
            if not cleaned_at or time.monotonic() - cleaned_at > CLEANUP_S:
                # Before the cleanup: an error in it must not repeat it at every scan.
                cleaned_at = time.monotonic()
                clean_up(settings, manifest)
            if trouble:
                logger.info("new versions are looked for again")
            pause, trouble = settings.poll_s, ""
        except Exception as error:
            if repr(error) != trouble:
                expected = isinstance(error, OSError)
                logger.error(TROUBLE, MAX_PAUSE_S, error, exc_info=None if expected else error)
            pause, trouble = min(2 * pause, max(MAX_PAUSE_S, settings.poll_s)), repr(error)
        time.sleep(pause)


def follow_keys(settings: Settings) -> None:
    """Tell nginx the ids of the API keys whenever they change, for ever.

    What counts is what nginx was last told: others write the file as well, and nginx may have been starting.
    """
    told = ""
    while settings.keys:
        try:
            if (text := write_keys(settings)) != told and reload_nginx(settings.run):
                told = text
        except Exception as error:  # noqa: BLE001  (the next second may be better)
            warn_once(logger, f"nginx does not learn of changed API keys: {error}")
        time.sleep(CHECK_S)


def reload_nginx(run: Path) -> bool:
    """Let nginx read its configuration again; return whether it runs."""
    with suppress(OSError, ValueError):
        pid = int((run / "nginx.pid").read_text(encoding="ascii"))
        if "nginx" in Path(f"/proc/{pid}/comm").read_text(encoding="ascii"):  # not a later process
            os.kill(pid, signal.SIGHUP)
            return True
    return False


def scan_once(scanner: RepositoryScanner, file: ManifestFile, before: Manifest) -> Manifest:
    """Return the new manifest, after it was written for the workers. Raises OSError."""
    manifest = scanner.scan()
    if manifest != before or file.read() is None:  # the file was removed
        file.write(manifest)
        log_changes(before, manifest)
    return manifest


def log_changes(before: Manifest, after: Manifest) -> None:
    """Log the differences of two manifests."""
    for entry in after.entries:
        if entry not in before.entries:
            logger.info("to be served: %s", format_entry(entry))
    for entry in before.entries:
        if entry not in after.entries:
            logger.info("no longer wanted: %s", format_entry(entry))
    for rejected in after.rejected:
        if rejected not in before.rejected:
            logger.error(
                "refused: %s, version %s: %s", rejected.name, rejected.version, rejected.reason
            )
    for sentence in after.skipped:
        if sentence not in before.skipped:
            logger.warning("%s", sentence)
    if after.default_note != before.default_note:
        logger.info("%s", after.default_note or f"only {after.default} is served")
    if after.problem and after.problem != before.problem:
        logger.error("%s; what is served goes on", after.problem)


def format_entry(entry: Entry) -> str:
    """Return an entry as text."""
    engine = f"{entry.footprint.engine}, {entry.footprint.precision}"
    return f"{entry.name}, version {entry.version} ({engine}, weights {entry.weights_digest})"


def main() -> None:
    """Watch by the environment's settings."""
    settings = Settings.from_env(os.environ)
    logging.config.dictConfig(logging_config(settings.log_level))
    keys = threading.Thread(target=follow_keys, args=(settings,), daemon=True)
    keys.start()  # beside the scans: a conversion takes minutes
    if not settings.poll_s:
        clean_up(settings, ManifestFile(settings.run).read() or Manifest())
        logger.info("SERVING_POLL_S=0: new versions are taken over on a reload only")
        keys.join()
        return
    os.nice(NICENESS)
    watch(settings)


if __name__ == "__main__":
    main()
