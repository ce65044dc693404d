"""Draw throughput and latency of every contender as an SVG with bars from zero.

python -m scripts.bench.chart    draw docs/benchmark.svg from the first table of docs/performance.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from app.settings import ROOT

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "benchmark.svg"
OURS = "this server"

WIDTH = 960
ROW = 30  # px from one contender to the next
TOP = 74  # above the first bar
BAR = 18
NAMES = 218  # the names end here
PANELS = ((234, 270), (608, 270))  # left edge and width of the longest bar, px

STYLE = """
    .ground { fill: #ffffff; }
    .title { font-size: 15px; font-weight: 600; fill: #1b1f24; }
    .note { font-size: 12px; fill: #57606a; }
    .name, .value { font-size: 13px; fill: #1b1f24; }
    .ours { font-weight: 600; }
    .axis { stroke: #c9ced6; }
    .bar { fill: #aab2bd; }
    .bar.ours { fill: #2f6fde; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0f1319; }
      .title, .name, .value { fill: #e6edf3; }
      .note { fill: #9aa4b2; }
      .axis { stroke: #30363d; }
      .bar { fill: #6e7681; }
      .bar.ours { fill: #6ea8fe; }
    }
  """


@dataclass(frozen=True)
class Row:
    """One contender under load.

    Attributes:
        name: as in the text.
        requests_per_s: throughput.
        p99_ms: 99th percentile of the latency.
    """

    name: str
    requests_per_s: float
    p99_ms: float


def read_rows(page: str) -> list[Row]:
    """Return the rows of the page's first table: name, requests/s, p50, p99, memory.

    Raises:
        ValueError: the first table has other columns.
    """
    table = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    if not table or "requests/s | p50 ms | p99 ms" not in table[0].splitlines()[0]:
        raise ValueError("the first table must have the columns requests/s, p50 ms and p99 ms")
    rows = []
    for line in table[1].splitlines():
        name, speed, _, p99, *_ = (cell.strip() for cell in line.split("|")[1:])
        rows.append(Row(name, float(speed), float(p99.replace(",", ""))))
    return rows


def draw_chart(rows: Sequence[Row]) -> str:
    """Return an SVG with two panels of horizontal bars: requests/s, and p99 in ms."""
    height = TOP + ROW * len(rows) + 16
    panels = (
        ("requests per second", "more is better", [row.requests_per_s for row in rows], ",.1f"),
        ("99th percentile latency, ms", "less is better", [row.p99_ms for row in rows], ",.0f"),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title text" font-family="system-ui, -apple-system, '
        "'Segoe UI', 'DejaVu Sans', sans-serif\">",
        '  <title id="title">Throughput and latency</title>',
        f'  <desc id="text">{escape(describe(rows))}</desc>',
        f"  <style>{STYLE}</style>",
        f'  <rect class="ground" width="{WIDTH}" height="{height}" rx="10"/>',
    ]
    for index, row in enumerate(rows):
        parts.append(text(row.name, NAMES, middle(index), f"name{mark(row)}", "end"))
    for (left, width), (title, note, values, form) in zip(PANELS, panels, strict=True):
        parts += [text(title, left, 32, "title"), text(note, left, 52, "note")]
        scale = width / max(*values, 1e-9)  # bars start at 0
        for index, (row, value) in enumerate(zip(rows, values, strict=True)):
            top = TOP + ROW * index + (ROW - BAR) / 2
            parts.append(
                f'  <rect class="bar{mark(row)}" x="{left}" y="{top:.0f}" '
                f'width="{value * scale:.1f}" height="{BAR}"/>'
            )
            after = left + value * scale + 6
            parts.append(text(format(value, form), after, middle(index), f"value{mark(row)}"))
        bottom = TOP + ROW * len(rows)
        parts.append(f'  <path class="axis" d="M{left} {TOP}V{bottom}"/>')
    return "\n".join([*parts, "</svg>", ""])


def describe(rows: Iterable[Row]) -> str:
    """Return the figures as a sentence, for screen readers."""
    figures = (
        f"{r.name}: {r.requests_per_s:,.1f} requests/s, p99 {r.p99_ms:,.0f} ms" for r in rows
    )
    return "; ".join(figures) + "."


def middle(index: int) -> float:
    """Return the baseline of a row's text, px."""
    return TOP + ROW * index + ROW / 2 + 4.5


def mark(row: Row) -> str:
    """Return the class that sets this server apart."""
    return " ours" if row.name.startswith(OURS) else ""


def text(words: str, x: float, y: float, kind: str, anchor: str = "start") -> str:
    """Return a text element."""
    return (
        f'  <text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def main() -> None:
    """Draw the documentation's chart."""
    CHART.write_text(draw_chart(read_rows(PAGE.read_text())))


if __name__ == "__main__":
    main()
