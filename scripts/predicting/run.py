"""Send images to a running server and write its answers to a file (docs/clients.md)."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .errors import Stop, describe
from .formats import Csv, Format, JsonLines
from .options import list_recorded, make_query, parse_options
from .pictures import find_pictures
from .progress import REDRAW_S, Progress, print_summary, say
from .rows import Row
from .server import Server
from .table import Table

AHEAD = 16  # images per job that may be answered ahead of the next row
FAILED, INTERRUPTED = 2, 130  # exit statuses; 130 as in shells


def answer_in_order(
    server: Server, files: Sequence[str], jobs: int, meanwhile: Callable[[], None]
) -> Iterator[Row]:
    """Yield the row of each file in order, with several requests in flight. Raises Stop."""
    pool = ThreadPoolExecutor(jobs)
    left = iter(files)
    asked: deque[Future[Row]] = deque()
    while True:
        for file in itertools.islice(left, jobs * AHEAD - len(asked)):
            asked.append(pool.submit(server.predict, file))
        if not asked:
            return
        first = asked.popleft()
        while not first.done():
            meanwhile()
            wait([first], REDRAW_S)
        yield first.result()


def run(options: argparse.Namespace) -> int:
    """Send all images and return the exit status. Raises Stop or OSError."""
    server = Server(options.url, make_query(options), options.retries)
    files, problems = find_pictures(options.pictures)
    server.check()
    path, form = options.csv or options.jsonl, choose_format(options, server)
    with contextlib.closing(Table(path, form, list_recorded(options))) as table:
        todo = [file for file in files if file not in table.done]
        if len(todo) < len(files):
            say(f"{path} has {len(files) - len(todo):,} of {len(files):,} pictures already")
        progress = Progress(len(problems) + len(todo), server)
        unlisted = [Row(str(one.filename), "unreadable_folder", describe(one)) for one in problems]
        answers = answer_in_order(server, todo, options.jobs, progress.draw)
        try:
            for row in itertools.chain(unlisted, answers):
                table.add(row)
                progress.count(row)
        except KeyboardInterrupt:
            progress.clear()
            left = len(todo) + len(problems) - progress.done
            say(
                f"stopped; {path} is whole, and the same command goes on with the {left:,} pictures left"
            )
            return INTERRUPTED
        finally:
            progress.clear()
    if progress.done:
        print_summary(progress, path)
    return 1 if progress.failures else 0


def choose_format(options: argparse.Namespace, server: Server) -> Format:
    """Return the format of the output. Raises Stop if the columns cannot be read from the server."""
    if options.jsonl:
        return JsonLines()
    return Csv(server.list_classes() if options.columns else None, options.bom)


def main() -> int:
    """Run the command line and return the exit status."""
    options = parse_options()
    try:
        return run(options)
    except Stop as error:
        say(f"scripts/predict: {error}")
    except OSError as error:
        say(f"scripts/predict: {error.filename or options.csv or options.jsonl}: {describe(error)}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED
