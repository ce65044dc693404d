"""The program that follows the models folder, beside Gunicorn: ``python -m app.commands.watch``.

It checks, converts and measures what is new, in processes of its own and at low priority, and writes
the manifest that the workers follow. Without it the server goes on with what it has.
"""

from __future__ import annotations

import logging.config
import os
import time

from app.control.cleanup import tidy
from app.control.manifest import Entry, Manifest, ManifestFile
from app.control.scanner import RepositoryScanner
from app.logs import logging_config
from app.settings import Settings

NICENESS = (
    10  # a conversion must not take the cores from the workers, nor starve while they are busy
)

TIDY_S = 3600  # between two looks for derived files that nobody uses
MAX_PAUSE_S = 300
TROUBLE = "new versions cannot be taken over, what is served goes on; tried again at pauses of up to %d s: %s"

logger = logging.getLogger("follow")


def follow(settings: Settings) -> None:
    """Look again and again, for ever. What goes wrong is logged once; then it is tried at growing pauses."""
    file = ManifestFile()
    # Gunicorn's master writes the first one. Here only what comes later is new. What an earlier start left is not
    # what is served now: its models folder may have been another.
    while (manifest := file.read_current()) is None:
        time.sleep(settings.poll_s)
    scanner = RepositoryScanner(settings, manifest)
    tidied, pause, trouble = 0.0, settings.poll_s, ""
    while True:
        try:
            manifest = file.read_current() or manifest  # the master may have written another
            manifest = look_once(scanner, file, manifest)
            if not tidied or time.monotonic() - tidied > TIDY_S:
                tidied = time.monotonic()  # what it meets must not delay the next looks
                tidy(settings, manifest)
            if trouble:
                logger.info("new versions are looked for again")
            pause, trouble = settings.poll_s, ""
        except Exception as error:
            if repr(error) != trouble:
                expected = isinstance(error, OSError)
                logger.error(TROUBLE, MAX_PAUSE_S, error, exc_info=None if expected else error)
            pause, trouble = min(2 * pause, max(MAX_PAUSE_S, settings.poll_s)), repr(error)
        time.sleep(pause)


def look_once(scanner: RepositoryScanner, file: ManifestFile, before: Manifest) -> Manifest:
    """Return the manifest as the folders are now, once the workers can know it. Raises OSError."""
    found = scanner.look()
    if found != before or file.read() is None:  # somebody has removed it
        file.write(found)
        tell_changes(before, found)
    return found


def tell_changes(before: Manifest, after: Manifest) -> None:
    """Log what is new."""
    for entry in after.entries:
        if entry not in before.entries:
            logger.info("to be served: %s", describe(entry))
    for entry in before.entries:
        if entry not in after.entries:
            logger.info("no longer wanted: %s", describe(entry))
    for rejected in after.rejected:
        if rejected not in before.rejected:
            logger.error(
                "refused: %s, version %s: %s", rejected.name, rejected.version, rejected.reason
            )
    for sentence in after.skipped:
        if sentence not in before.skipped:
            logger.warning("%s", sentence)
    if after.default_told != before.default_told:
        logger.info("%s", after.default_told or f"only {after.default} is served")
    if after.problem and after.problem != before.problem:
        logger.error("%s; what is served goes on", after.problem)


def describe(entry: Entry) -> str:
    """Return an entry in words."""
    how = f"{entry.footprint.engine}, {entry.footprint.precision}"
    return f"{entry.name}, version {entry.version} ({how}, weights {entry.weights_hash})"


def main() -> None:
    """Follow, as the environment says."""
    settings = Settings.from_env(os.environ)
    logging.config.dictConfig(logging_config(settings.log_level))
    if not settings.poll_s:
        tidy(settings, ManifestFile().read() or Manifest())
        logger.info("SERVING_POLL_S=0: new versions are taken over on a reload only")
        return
    os.nice(NICENESS)
    follow(settings)


if __name__ == "__main__":
    main()
