"""The scanner finds, checks, refuses and keeps versions; only the measurement is made quick here."""

import dataclasses
import itertools
import json
import os
import shutil

import pytest

from app.control import scanner as scanner_module
from app.control.footprint import Footprint
from app.control.manifest import Entry, Manifest, ManifestFile, RejectedVersion, last_default
from app.control.scanner import WATCHED, RepositoryScanner
from app.errors import BundleError, TransientError
from app.models.bundle import write_sums
from app.system import files
from app.system.files import lock_file
from tests.disks import on_small_disk
from tests.helpers import make_entry, make_manifest
from tests.test_untrusted_files import make_special

NEEDS = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)


def add_version(models, version, weights=b"good", name="leaves"):
    folder = models / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pth").write_bytes(weights)
    (folder / "class_name.json").write_text('{"0": "Rust"}')
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Replace the measure process: weights "bad" cannot be served. Returns the measured paths."""
    calls = []

    def find_footprint(settings, artifacts, sibling=None):
        calls.append(artifacts.bundle.version)
        if artifacts.bundle.weights.read_bytes() == b"bad":
            raise BundleError(f"{artifacts.bundle.weights} cannot be read as weights")
        return NEEDS

    monkeypatch.setattr(scanner_module, "find_footprint", find_footprint)
    return calls


@pytest.fixture
def scanner(settings, tmp_path, measured):
    """Return a factory of scanners of tmp_path/models."""
    (tmp_path / "models").mkdir()

    def make(before=None, **rows):
        rows = {"models": str(tmp_path / "models"), "cache": str(tmp_path / "cache")} | rows
        return RepositoryScanner(settings(**rows), before)

    return make


@pytest.fixture
def models(scanner, tmp_path):
    return tmp_path / "models"


def versions(manifest):
    return [entry.version for entry in manifest.entries]


def test_a_found_version_is_checked_once(scanner, models, measured):
    add_version(models, 1)
    here = scanner()
    assert versions(here.scan()) == [1]
    assert here.scan() == here.scan()
    assert measured == [1]


def test_a_new_version_takes_over_once_its_files_stop_changing(scanner, models, measured):
    add_version(models, 1)
    here = scanner()
    here.scan()
    add_version(models, 2, b"half")
    assert versions(here.scan()) == [1]
    add_version(models, 2, b"all of it")
    assert versions(here.scan()) == [1]
    assert versions(here.scan()) == [2]
    assert measured == [1, 2]


def test_a_published_version_takes_over_at_once(scanner, models):
    add_version(models, 1)
    here = scanner()
    here.scan()
    write_sums(add_version(models, 2))
    assert versions(here.scan()) == [2]


def test_a_refused_version_keeps_the_previous_one_with_a_reason(scanner, models):
    add_version(models, 1)
    here = scanner()
    here.scan()
    folder = add_version(models, 2, b"bad")
    here.scan()
    manifest = here.scan()
    assert versions(manifest) == [1]
    (rejected,) = manifest.rejected
    assert (rejected.name, rejected.version) == ("leaves", 2)
    assert rejected.reason == f"{folder / 'model.pth'} cannot be read as weights"
    assert not manifest.failure
    add_version(models, 2, b"mended")
    here.scan()
    assert versions(here.scan()) == [2]


def test_files_that_do_not_match_the_checksums_are_refused(scanner, models):
    folder = add_version(models, 1)
    write_sums(folder)
    (folder / "class_name.json").write_text('{"0": "Dust"}')
    manifest = scanner().scan()
    assert versions(manifest) == []
    assert "class_name.json is not what SHA256SUMS says" in manifest.failure
    (folder / "class_name.json").unlink()
    assert "class_name.json" in scanner().scan().failure


def test_weights_that_change_in_place_are_a_new_entry(scanner, models):
    add_version(models, 1)
    here = scanner()
    (before,) = here.scan().entries
    add_version(models, 1, b"fine-tuned")
    here.scan()
    (after,) = here.scan().entries
    assert before.version == after.version == 1
    assert before.key != after.key


def test_a_config_that_changes_in_place_is_a_new_entry(scanner, models, tmp_path):
    folder = add_version(models, 1)
    here = scanner()
    (before,) = here.scan().entries
    before.open(tmp_path / "cache")
    (folder / "model.json").write_text('{"threshold": 0.75}')
    with pytest.raises(
        BundleError, match=r"1/model\.json has changed since the version was checked"
    ):
        before.open(tmp_path / "cache")
    here.scan()
    (after,) = here.scan().entries
    assert after.key != before.key
    assert after.open(tmp_path / "cache").bundle.config.decision.threshold == 0.75


@pytest.mark.parametrize("how", ["emptied", "gone", "all gone"])
def test_a_vanished_mount_unloads_no_version(scanner, models, how):
    add_version(models, 3)
    here = scanner()
    here.scan()
    if how == "all gone":
        shutil.rmtree(models)
    elif how == "gone":
        shutil.rmtree(models / "leaves")
    else:
        shutil.rmtree(models / "leaves" / "3")
    manifest = here.scan()
    assert versions(manifest) == [3]
    assert "holds no" in manifest.problem or "cannot be read" in manifest.problem


def test_an_unreadable_folder_unloads_no_version(scanner, models, monkeypatch):
    add_version(models, 3)
    here = scanner()
    here.scan()

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(scanner_module, "versions_of", refuse)
    manifest = here.scan()
    assert versions(manifest) == [3]
    assert "leaves cannot be read: " in manifest.problem


def test_the_last_version_stays_when_it_is_damaged_in_place(scanner, models):
    add_version(models, 3)
    here = scanner()
    before = here.scan()
    add_version(models, 3, b"bad")
    here.scan()
    after = here.scan()
    assert after.entries == before.entries
    assert after.rejected[0].version == 3


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ("latest:1", [5]),
        ("latest:2", [2, 5]),
        ("latest:9", [1, 2, 5]),
        ("all", [1, 2, 5]),
        ("10", []),
    ],
)
def test_a_version_that_cannot_be_served_does_not_count(scanner, models, policy, chosen):
    for version in (1, 2, 5, 10):
        add_version(models, version, b"bad" if version == 10 else b"good")
    assert versions(scanner(versions=policy).scan()) == chosen


def test_latest_checks_no_more_versions_than_necessary(scanner, models, measured):
    for version in (1, 2, 5, 10):
        add_version(models, version)
    scanner(versions="latest:2").scan()
    assert measured == [10, 5]


def test_several_versions_are_listed_in_order(scanner, models):
    for version in ("0003", "1", "2", "draft", ".publishing-x", "0"):
        add_version(models, version)
    assert versions(scanner(versions="all").scan()) == [1, 2, 3]
    assert versions(scanner(versions="latest:2").scan()) == [2, 3]
    assert versions(scanner(versions="1,7").scan()) == [1]


def test_the_served_versions_stay_while_another_process_scans(scanner, models, measured, tmp_path):
    add_version(models, 1)
    here = scanner()
    before = here.scan()
    add_version(models, 2, b"half")
    with lock_file(tmp_path / "cache" / "scanner.lock", 5):
        assert here.scan(wait_s=0.1) == before
        fresh = scanner()
        assert versions(fresh.scan(wait_s=0.1)) == [2], (
            "it has nothing yet, so it looks without the lock"
        )
    assert measured == [1, 2]


def test_a_scanner_starts_with_the_served_versions(scanner, models):
    before = make_manifest(make_entry("leaves", 4))
    add_version(models, 5, b"bad")
    assert versions(scanner(before).scan()) == [4]


def test_a_manifest_is_read_back_unchanged_from_its_file(run_folder):
    file = ManifestFile(run_folder, "us")
    assert file.read() is None
    manifest = make_manifest(
        make_entry("voc", 1),
        make_entry("voc", 2),
        rejected=(RejectedVersion("voc", 3, "damaged"),),
        labels={"voc": {"stable": 1}},
        traffic={"voc": {"stable": 9, "2": 1}},
        problem="odd",
        skipped=("lost+found is skipped",),
    )
    file.write(manifest)
    assert (
        ManifestFile(run_folder).read()
        == ManifestFile(run_folder, "us").read()
        == file.read()
        == manifest
    )
    assert file.read() is file.read()  # not read again while it is the same file
    file.write(Manifest())
    assert file.read() == Manifest()
    assert sorted(path.name for path in run_folder.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"entries": [{}], "rejected": []}',
        '{"instance": "us", "manifest": "{}"}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_counts_as_none(run_folder, text):
    run_folder.mkdir()
    (run_folder / "manifest.json").write_text(text)
    assert ManifestFile(run_folder, "us").read() is None
    assert last_default(run_folder) == ""


def test_a_worker_follows_its_own_masters_manifest_only(run_folder):
    ManifestFile(run_folder, "an earlier start").write(make_manifest(make_entry("old", 1)))
    assert ManifestFile(run_folder, "us").read() is None
    ManifestFile(run_folder, "us").write(make_manifest(make_entry("new", 1)))
    watcher = ManifestFile(run_folder)
    assert watcher.read().default == "new"
    watcher.write(make_manifest(make_entry("newer", 1)))
    assert ManifestFile(run_folder, "us").read().default == "newer"


def test_a_watcher_writes_for_the_current_master(run_folder):
    ManifestFile(run_folder, "an earlier start").write(make_manifest(make_entry("old", 1)))
    watcher = ManifestFile(run_folder)
    watcher.read()
    ManifestFile(run_folder, "us").write(
        make_manifest(make_entry("new", 1))
    )  # while the watcher scanned
    watcher.write(make_manifest(make_entry("newer", 1)))
    assert ManifestFile(run_folder, "us").read().default == "newer"


def test_an_old_manifest_is_removed_with_a_warning_if_the_new_one_cannot_be_written(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from app.control.manifest import Manifest, ManifestFile;"
        "run = Path(sys.argv[1], 'run'); ManifestFile(run, 'an earlier start').write(Manifest('old'));"
        "print(ManifestFile(run, 'us').try_write(Manifest('x' * 80_000))); print(os.listdir(run))"
    )
    (tmp_path / "disk").mkdir()
    trouble, left = on_small_disk(tmp_path / "disk", 64, program).stdout.splitlines()
    assert "manifest.json cannot be written ([Errno 28] No space left on device" in trouble
    assert left == "[]"


def test_a_manifest_is_on_the_disk_before_it_is_renamed(run_folder, monkeypatch):
    """Otherwise a power cut leaves an empty file, and the next start forgets the default model."""
    written, real = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (written.append(os.fstat(handle).st_ino), real(handle))
    )
    ManifestFile(run_folder, "us").write(make_manifest(make_entry("new", 1)))
    assert (run_folder / "manifest.json").stat().st_ino in written


def test_leftovers_of_a_killed_writer_are_removed_with_the_next_manifest(run_folder):
    run_folder.mkdir()
    draft, handle = files.create_draft(run_folder, files.DRAFT)
    os.close(handle)
    ManifestFile(run_folder, "us").write(make_manifest(make_entry("new", 1)))
    assert not draft.exists()


@pytest.mark.parametrize("kind", ["FIFO", "folder", "link out", "loop"])
def test_an_unreadable_precision_report_does_not_stop_the_version(scanner, models, kind):
    make_special(add_version(models, 1) / "precision.json", kind)
    manifest = scanner().scan()
    assert versions(manifest) == [1]
    assert not manifest.rejected


def test_checksums_may_have_capitals_and_empty_lines(scanner, models):
    folder = add_version(models, 1)
    write_sums(folder)
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    sums = [line[:64].upper() + line[64:] for line in sums]
    (folder / "SHA256SUMS").write_text("\n\n".join(sums))
    assert versions(scanner().scan()) == [1]


def test_checksums_are_in_the_format_of_sha256sum(models):
    folder = add_version(models, 1)
    write_sums(folder)
    assert (folder / "SHA256SUMS").read_text().splitlines()[0].endswith("  model.pth")
    assert json.loads((folder / "class_name.json").read_text())


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def temporary_failures(monkeypatch, scanner):
    """Replace a measurement by one with temporary failures. Returns (scanner, clock, reasons, calls)."""
    clock, calls = Clock(), []
    reasons = [TransientError("the measure process took longer than 300 s")] * 9

    def find_footprint(settings, artifacts, sibling=None):
        calls.append(clock.now)
        if reasons:
            raise reasons.pop()
        return NEEDS

    monkeypatch.setattr(scanner_module, "find_footprint", find_footprint)
    here = scanner()
    here._clock = clock
    return here, clock, reasons, calls


def test_a_temporary_refusal_is_retried_with_growing_pauses(temporary_failures, models):
    here, clock, _reasons, calls = temporary_failures
    add_version(models, 1)
    messages = set()
    for clock.now in range(0, 30_000, 10):
        messages |= {rejected.reason for rejected in here.scan().rejected}
    pauses = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert versions(here.scan()) == [1]
    (reason,) = messages  # so it is logged once
    assert reason.startswith("the measure process took longer than 300 s; it is tried again")


def test_changed_files_are_checked_at_once_and_reset_the_pauses(temporary_failures, models):
    here, clock, _reasons, calls = temporary_failures
    add_version(models, 1)
    here.scan()
    clock.now = 60
    here.scan()
    add_version(models, 1, b"other weights")
    for clock.now in (61, 62, 100, 122):
        here.scan()
    assert calls == [0, 60, 62, 122]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_full_disk_or_memory_is_a_temporary_refusal(temporary_failures, models, error):
    here, clock, reasons, _calls = temporary_failures
    reasons[:] = [error]
    add_version(models, 1)
    assert "it is tried again" in here.scan().failure
    clock.now = 60
    assert versions(here.scan()) == [1]


@pytest.mark.parametrize("error", [TypeError("odd"), RecursionError(), KeyError("a"), ValueError()])
def test_an_unexpected_error_of_a_check_refuses_the_version_for_good(
    temporary_failures, models, error
):
    here, clock, reasons, calls = temporary_failures
    reasons[:] = [error] * 2
    add_version(models, 1)
    for clock.now in (0, 100, 10_000):
        assert type(error).__name__ in here.scan().failure
    assert calls == [0]


def test_an_error_of_the_folders_keeps_the_served_versions(scanner, models, monkeypatch):
    add_version(models, 1)
    here = scanner()
    here.scan()

    def fail(_settings):
        raise RuntimeError("Symlink loop")

    monkeypatch.setattr(scanner_module, "read_repository", fail)
    manifest = here.scan()
    assert versions(manifest) == [1]
    assert "Symlink loop" in manifest.problem


def names(manifest):
    return [entry.name for entry in manifest.entries]


def test_a_second_custom_model_is_served_and_the_default_stays(scanner, models):
    add_version(models, 1, name="shapes")
    here = scanner()
    assert here.scan().default == "shapes"
    write_sums(add_version(models, 1, name="acorns"))
    manifest = here.scan()
    assert sorted(names(manifest)) == ["acorns", "shapes"]
    assert manifest.default == "shapes"
    assert "answered by shapes (SERVING_MODEL" in manifest.default_note
    write_sums(add_version(models, 2, name="shapes"))
    assert sorted(entry.key[:2] for entry in here.scan().entries) == [("acorns", 1), ("shapes", 2)]


def test_the_oldest_model_is_the_default_at_a_fresh_start(scanner, models, tmp_path):
    for age, name in ((1, "acorns"), (3, "shapes"), (2, "birds")):
        os.utime(add_version(models, 1, name=name) / "model.pth", (10**9 - age, 10**9 - age))
        add_version(models, 2, name=name)
    assert scanner().scan().default == "shapes"
    assert scanner(model="birds").scan().default == "birds"
    assert names(scanner(model="birds").scan()) == ["birds"]
    shutil.rmtree(models / "shapes")
    assert scanner().scan().default == "birds"
    earlier = RepositoryScanner(
        scanner()._settings, default="acorns"
    ).scan()  # this installation's last default
    assert earlier.default == "acorns"


def test_models_of_the_same_age_are_ordered_by_name(scanner, models):
    for name in ("b", "a", "c"):
        os.utime(add_version(models, 1, name=name) / "model.pth", (10**9, 10**9))
    assert scanner().scan().default == "a"


def test_the_next_model_becomes_the_default_if_the_default_is_removed(scanner, models):
    add_version(models, 1, name="shapes")
    here = scanner()
    here.scan()
    write_sums(add_version(models, 1, name="acorns"))
    here.scan()
    shutil.rmtree(models / "shapes")
    manifest = here.scan()
    assert (names(manifest), manifest.default, manifest.default_note) == (["acorns"], "acorns", "")


def test_a_model_that_cannot_be_served_is_not_the_default_while_another_can(scanner, models):
    os.utime(add_version(models, 1, b"bad", name="old") / "model.pth", (1, 1))
    add_version(models, 1, name="new")
    manifest = scanner().scan()
    assert (names(manifest), manifest.default) == (["new"], "new")


def test_the_demo_keeps_serving_if_the_first_custom_model_is_bad(scanner, models):
    add_version(models, 1, name="demo")
    here = scanner()
    here.scan()
    write_sums(add_version(models, 1, b"bad", name="own"))
    manifest = here.scan()
    assert (names(manifest), manifest.default) == (["demo"], "demo")
    assert manifest.rejected[0].name == "own"
    write_sums(add_version(models, 2, name="own"))
    manifest = here.scan()
    assert (names(manifest), manifest.default) == (["own"], "own")


def test_a_bare_mount_and_models_in_it_are_all_served(scanner, models):
    (models / "model.pth").write_bytes(b"good")
    (models / "class_name.json").write_text('{"0": "Rust"}')
    os.utime(models / "model.pth", (1, 1))
    add_version(models, 1, name="shapes")
    manifest = scanner().scan()
    assert sorted(names(manifest)) == ["models", "shapes"]
    assert manifest.default == "models"
    assert names(scanner(model="shapes").scan()) == ["shapes"]


def test_the_version_policy_applies_to_each_model(scanner, models):
    for name in ("a", "b"):
        for version in (1, 2, 3):
            add_version(models, version, name=name)
    manifest = scanner(versions="latest:2").scan()
    assert sorted(entry.key[:2] for entry in manifest.entries) == [
        ("a", 2),
        ("a", 3),
        ("b", 2),
        ("b", 3),
    ]


def test_both_names_of_one_folder_answer(scanner, models, tmp_path, settings):
    add_version(models, 1)
    file = models.parent / "models.config"
    configs = [{"name": name, "base_path": str(models / "leaves")} for name in ("mnist", "mxnet")]
    file.write_text(json.dumps({"model_config_list": {"config": configs}}))
    manifest = scanner(models_file=str(file)).scan()
    assert [(entry.name, entry.version) for entry in manifest.entries] == [
        ("mnist", 1),
        ("mxnet", 1),
    ]


def test_changed_files_of_the_same_size_and_time_are_detected(scanner, models):
    folder = add_version(models, 1)
    here = scanner()
    (before,) = here.scan().entries
    stat = (folder / "model.pth").stat()
    (folder / "other").write_bytes(b"evil")
    os.replace(folder / "other", folder / "model.pth")
    os.utime(folder / "model.pth", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    here.scan()
    (after,) = here.scan().entries
    assert before.key != after.key


def test_a_version_changed_in_place_is_not_replaced_by_a_lower_one(scanner, models):
    for version in (1, 2):
        add_version(models, version)
    here = scanner()
    assert versions(here.scan()) == [2]
    os.utime(models / "leaves" / "2" / "model.pth")
    assert versions(here.scan()) == [2]
    assert versions(here.scan()) == [2]


def test_another_network_of_the_same_weights_is_a_new_entry():
    """scripts/optimize ran a second time: the workers load the new network, and a replacement loads the same."""
    footprint = Footprint("openvino", "int8", "cpu", "the fastest", 10**8)
    before, after = (
        Entry("leaves", 1, "somewhere", "weights", footprint, f"/a/b/int8-{digest * 16}")
        for digest in "01"
    )
    assert before.key != after.key
    elsewhere = dataclasses.replace(before, network=before.network.replace("/a", "/c"))
    assert elsewhere.key == before.key


def test_a_version_whose_network_is_gone_is_checked_again(scanner, models, measured, tmp_path):
    """A worker removes a damaged network; the next look converts it again."""
    add_version(models, 1)
    here = scanner()
    (entry,) = here.scan().entries
    network = tmp_path / "fp32-0123456789abcdef"
    network.mkdir()
    ((key, known),) = here._checks.items()
    here._checks[key] = dataclasses.replace(
        known, result=dataclasses.replace(entry, network=str(network))
    )
    here.scan()
    assert measured == [1]
    network.rmdir()
    here.scan()
    assert measured == [1, 1]


@pytest.mark.parametrize("target", ["itself", "x" * 300])
@pytest.mark.parametrize("name", WATCHED)
def test_a_link_that_cannot_be_followed_harms_its_own_version_only(scanner, models, name, target):
    add_version(models, 1)
    running = scanner()
    running.scan()
    folder = add_version(models, 2)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(name if target == "itself" else target)
    for here in (running, scanner()):
        here.scan()
        manifest = here.scan()
        assert versions(manifest) in ([1], [2])
        assert not manifest.problem
        assert [rejected.version for rejected in manifest.rejected] in ([2], [])
    write_sums(add_version(models, 3))
    assert versions(running.scan()) == [3]


@pytest.mark.parametrize("way", ["a file", "a FIFO for a lock"])
def test_new_versions_are_served_even_if_the_cache_cannot_be_locked(scanner, models, tmp_path, way):
    if way == "a file":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache").mkdir()
        os.mkfifo(tmp_path / "cache" / "scanner.lock")
    add_version(models, 1)
    here = scanner()
    assert versions(here.scan()) == [1]
    write_sums(add_version(models, 2))
    assert versions(here.scan()) == [2]
