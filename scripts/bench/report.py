"""The results: medians over the rounds, ratios with their spread, a table and the rows of the chart."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.bench.chart import OURS, Row
from scripts.bench.contenders import PEERS

CROWD = 32  # clients at which contenders are compared
# (what, over what): served throughput as a share, or as times a peer's.
RATIOS = [
    ("ours-fp32", "bare-fp32"),
    ("ours-bf16", "bare-bf16"),
    ("ours-int8", "bare-int8"),
    *(
        (f"ours-{precision}", other)
        for precision in ("fp32", "bf16", "int8")
        for other in ("usual-as-typed", "usual-one-thread", *PEERS)
    ),
    ("ours-no-model", "usual-no-model"),
    *(("ours-no-model", f"{name}-no-model") for name in PEERS),
    *(("ours-no-model-fast", f"{name}-no-model") for name in PEERS),
]


def print_report(report: dict[str, Any]) -> None:
    """Print every contender's medians, then the ratios."""
    results = report["results"]
    print(
        f"\n{report['machine']['processor']}, {report['machine']['cores']} cores   {report['command']}"
    )
    print("\nmedians of the rounds (least–most); memory is PSS, shared pages counted once\n")
    for name, rounds in results.items():
        if name.startswith("bare"):
            speeds = [one["requests_per_s"] for one in rounds]
            lone = [one["lone_ms"] for one in rounds]
            print(
                f"{name:20}{spread(speeds):>22} images/s at its best batch; batch of one {spread(lone)} ms"
            )
    head = f"{'':20}{'clients':>8}{'requests/s':>22}{'p50':>9}{'p95':>9}{'p99 ms':>9}"
    print(f"\n{head}{'errors':>8}{'CPU ms':>8}{'MiB':>7}{'ready s':>9}")
    for name, rounds in results.items():
        if name.startswith("bare"):
            continue
        for index, first in enumerate(rounds[0]["samples"]):
            samples = [one["samples"][index] for one in rounds]
            middle = {key: float(np.median([s[key] for s in samples])) for key in first}
            print(
                f"{name:20}{first['clients']:>8}{spread([s['requests_per_s'] for s in samples]):>22}"
                f"{middle['p50_ms']:>9.1f}{middle['p95_ms']:>9.1f}{middle['p99_ms']:>9.1f}"
                f"{sum(s['errors'] for s in samples):>8}{middle['cpu_s_per_request'] * 1000:>8.1f}"
                f"{middle['pss_mib']:>7.0f}{np.median([one['ready_s'] for one in rounds]):>9.1f}"
            )
    print(f"\nratios within a round, at {CROWD} clients")
    for what, over in RATIOS:
        if what in results and over in results:
            pairs = zip(results[what], results[over], strict=True)
            ratios = [throughput(one) / throughput(other) for one, other in pairs]
            print(f"{what:>20} / {over:20}{spread(ratios, 2):>22}")
    for name in ("fp32", "bf16", "int8"):
        if f"ours-{name}" in results and f"bare-{name}" in results:
            pairs = zip(results[f"ours-{name}"], results[f"bare-{name}"], strict=True)
            extra = [one["samples"][0]["p50_ms"] - bare["lone_ms"] for one, bare in pairs]
            fair = [
                at(one, CROWD)["p99_ms"] / at(one, CROWD)["p50_ms"]
                for one in results[f"ours-{name}"]
            ]
            print(
                f"ours-{name}: a lone client waits {spread(extra)} ms more than the bare forward; "
                f"p99 / p50 at {CROWD} clients {spread(fair, 2)}"
            )
    print_disagreements(report)
    for name, found in report.items():
        if name.startswith("open-loop"):
            print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()))


def print_disagreements(report: dict[str, Any]) -> None:
    """Print the contenders whose labels of the first image differ from those of the network itself."""
    for name, rounds in report["results"].items():
        found = [one["labels"] for one in rounds if "labels" in one and "no-model" not in name]
        if any(labels != report["labels"] for labels in found):
            print(f"{name} saw {found}, the network itself {report['labels']}")


def rows_of(report: dict[str, Any]) -> list[Row]:
    """Return the chart's rows: the medians of every contender with a real model, at the crowd's clients."""
    rows = []
    for name, rounds in report["results"].items():
        if not name.startswith("bare") and "no-model" not in name:
            samples = [at(one, CROWD) for one in rounds]
            speed, p99 = (
                float(np.median([sample[key] for sample in samples]))
                for key in ("requests_per_s", "p99_ms")
            )
            rows.append(Row(name.replace("ours-", f"{OURS}, "), speed, p99))
    return rows


def throughput(one: dict[str, Any]) -> float:
    """Return requests/s of one round: a bare engine's best, or a server's under the crowd."""
    return float((one if "requests_per_s" in one else at(one, CROWD))["requests_per_s"])


def at(one: dict[str, Any], clients: int) -> dict[str, Any]:
    """Return a round's sample under that many clients (or the largest that was measured)."""
    samples: list[dict[str, Any]] = one["samples"]
    return next((s for s in samples if s["clients"] == clients), samples[-1])


def spread(values: list[float], digits: int = 1) -> str:
    """Return the median with the least and the most."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
