"""scripts/plan-workers: print how many workers fit on this machine, with the reasons."""

from __future__ import annotations

import os
import sys

from app.control.plan import scan_and_plan
from app.settings import Settings


def main() -> None:
    """Print the plan for the environment's settings."""
    plan = scan_and_plan(Settings.from_env(os.environ))
    for name, text in plan.lines:
        print(f"{name:8}{text}")
    if plan.warning:
        print(f"warning {plan.warning}")
    for rejected in plan.manifest.rejected:
        print(f"refused {rejected.name}, version {rejected.version}: {rejected.reason}")
    if plan.manifest.failure:
        sys.exit(f"no worker can serve: {plan.manifest.failure}")


if __name__ == "__main__":
    main()
