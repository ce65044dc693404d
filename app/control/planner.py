"""The plan of a running Gunicorn: made by its master at the start and at each reload, inherited by its workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.control.manifest import Manifest, ManifestFile, instance_id, last_default
from app.control.plan import Plan, make_plan
from app.control.scanner import RepositoryScanner
from app.settings import Settings


class Planner:
    """Makes plans, each on top of the one before.

    Attributes:
        plan: the current one; None before the first.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self._file: ManifestFile | None = None

    def make(self, settings: Settings) -> Plan:
        """Scan the models folder, write the manifest, and make the plan current."""
        file = self._file = ManifestFile(settings.run, instance_id())
        before = self.plan
        if before:  # the watcher may have changed the manifest since
            before = replace(before, manifest=file.read() or before.manifest)
        manifest = RepositoryScanner(
            settings, before.manifest if before else None, last_default(settings.run)
        ).scan()
        problem = file.try_write(manifest)
        plan = make_plan(settings, manifest, before)
        if problem:
            plan = replace(plan, warning="; ".join(filter(None, (plan.warning, problem))))
        self.plan = replace(plan, is_followed=settings.poll_s > 0)
        return self.plan

    def restore(self, plan: Plan | None) -> None:
        """Make an earlier plan current again: its workers go on, and their replacements serve the same."""
        self.plan = plan
        if plan and self._file and not plan.is_followed:
            self._file.try_write(plan.manifest)


# The only instance, the master's: conf/gunicorn.conf.py and app/gunicorn/arbiter.py make its plans, and app/wsgi.py
# reads the current one in each worker, after the fork.
planner = Planner()


def manifest_reader(settings: Settings, first: Manifest) -> Callable[[], Manifest]:
    """Return a reader of the current manifest, which repeats the last one (first: ``first``) if the file is bad."""
    file, last = ManifestFile(settings.run, instance_id()), first

    def read() -> Manifest:
        nonlocal last
        last = file.read() or last
        return last

    return read
