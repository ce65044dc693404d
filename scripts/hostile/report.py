"""The results: a line for each phase, then every kind of fault with its first inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from scripts.hostile.gauges import Gauges
from scripts.hostile.trial import Row

COLUMNS = (
    *(
        ("phase", "<10"),
        ("seconds", ">8"),
        ("sent", ">8"),
        ("2xx", ">7"),
        ("4xx", ">7"),
        ("busy", ">6"),
        ("5xx", ">5"),
        ("none", ">6"),
    ),
    *(
        ("slowest s", ">10"),
        ("healthz s", ">10"),
        ("good", ">6"),
        ("MiB", ">6"),
        ("peak", ">6"),
        ("verdict", ">10"),
    ),
)


def print_report(rows: Iterable[Row], before: Gauges | None, after: Gauges | None) -> None:
    """Print the table, the gauges before and after, and the faults."""
    rows = list(rows)
    print("\n" + "".join(f"{name:{form}}" for name, form in COLUMNS))
    for row in rows:
        shares = [row.share(test) for test in ("2xx", "4xx", "busy", "5xx", "none")]
        verdict = (
            f"{sum(row.count.values())} faults" if row.count else "cut" if row.cut else "sound"
        )
        cells = [
            row.name,
            f"{row.seconds:.0f}",
            row.sent,
            *shares,
            f"{row.slowest_s:.1f}",
            f"{row.lag_s:.2f}",
            row.good,
        ]
        cells += [f"{row.memory_mib:+.0f}", f"{row.peak_mib:.0f}", verdict]
        print("".join(f"{cell:{form}}" for cell, (_, form) in zip(cells, COLUMNS, strict=True)))
    print(LEGEND)
    if before and after:
        print("\nthe server's processes" + " " * 6 + "before     after")
        for name in (each.name for each in fields(Gauges)):
            print(f"  {name:18}{getattr(before, name):>14,.0f}{getattr(after, name):>10,.0f}")
    for row in rows:
        for kind, places in row.faults.items():
            print(f"\n{row.name}, {row.count[kind]} times: {kind}")
            for place in places:
                print(f"    {place}")


LEGEND = """
busy: 429 and 503, with Retry-After; none: closed without an answer; healthz s: the slowest of /healthz meanwhile;
good: requests of polite clients, each compared with the right answer; MiB: the workers' memory since the phase began;
peak: the most that one worker held; cut: there was no time for all of it"""
