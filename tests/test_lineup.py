"""The lineup: what is found in a folder, checked, refused, kept; only the measuring is made quick here."""

import json
import shutil

import pytest

from app import lineup as lineup_module
from app.bundle import write_sums
from app.errors import BundleError
from app.footprint import Footprint
from app.lineup import Curator, Lineup, LineupFile, Refusal
from app.machine import hold_lock
from tests.helpers import make_entry, make_lineup

NEEDS = Footprint("openvino", "fp32", "cpu", "asked for", 10**8)


def add_version(models, version, weights=b"good", name="leaves"):
    folder = models / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pth").write_bytes(weights)
    (folder / "class_name.json").write_text('{"0": "Rust"}')
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Stand for the probe: weights that say "bad" cannot be served. Returns what was measured."""
    calls = []

    def find_footprint(settings, optimized, sibling=None):
        calls.append(optimized.bundle.version)
        if optimized.bundle.weights.read_bytes() == b"bad":
            raise BundleError(f"{optimized.bundle.weights} cannot be read as weights")
        return NEEDS

    monkeypatch.setattr(lineup_module, "find_footprint", find_footprint)
    return calls


@pytest.fixture
def curator(settings, tmp_path, measured):
    """Return a maker of curators of tmp_path/models."""
    (tmp_path / "models").mkdir()

    def make(before=None, **rows):
        rows = {"models": str(tmp_path / "models"), "cache": str(tmp_path / "cache")} | rows
        return Curator(settings(**rows), before)

    return make


@pytest.fixture
def models(curator, tmp_path):
    return tmp_path / "models"


def versions(lineup):
    return [entry.version for entry in lineup.entries]


def test_what_is_found_is_checked_once(curator, models, measured):
    add_version(models, 1)
    here = curator()
    assert versions(here.look()) == [1]
    assert here.look() == here.look()
    assert measured == [1]


def test_a_new_version_takes_over_once_nobody_is_copying_it_any_more(curator, models, measured):
    add_version(models, 1)
    here = curator()
    here.look()
    add_version(models, 2, b"half")
    assert versions(here.look()) == [1]
    add_version(models, 2, b"all of it")
    assert versions(here.look()) == [1]
    assert versions(here.look()) == [2]
    assert measured == [1, 2]


def test_a_published_version_takes_over_at_once(curator, models):
    add_version(models, 1)
    here = curator()
    here.look()
    write_sums(add_version(models, 2))
    assert versions(here.look()) == [2]


def test_a_refused_version_leaves_the_one_before_and_says_why(curator, models):
    add_version(models, 1)
    here = curator()
    here.look()
    folder = add_version(models, 2, b"bad")
    here.look()
    lineup = here.look()
    assert versions(lineup) == [1]
    (refusal,) = lineup.refusals
    assert (refusal.name, refusal.version) == ("leaves", 2)
    assert refusal.reason == f"{folder / 'model.pth'} cannot be read as weights"
    assert not lineup.failure
    add_version(models, 2, b"mended")
    here.look()
    assert versions(here.look()) == [2]


def test_files_that_are_not_what_the_sums_say_are_refused(curator, models):
    folder = add_version(models, 1)
    write_sums(folder)
    (folder / "class_name.json").write_text('{"0": "Dust"}')
    lineup = curator().look()
    assert versions(lineup) == []
    assert "class_name.json is not what SHA256SUMS says" in lineup.failure
    (folder / "class_name.json").unlink()
    assert "class_name.json" in curator().look().failure


def test_weights_that_change_in_place_are_another_thing_to_serve(curator, models):
    add_version(models, 1)
    here = curator()
    (before,) = here.look().entries
    add_version(models, 1, b"fine-tuned")
    here.look()
    (after,) = here.look().entries
    assert before.version == after.version == 1
    assert before.key != after.key


def test_a_card_that_changes_in_place_is_another_thing_to_serve(curator, models, tmp_path):
    folder = add_version(models, 1)
    here = curator()
    (before,) = here.look().entries
    before.open(tmp_path / "cache")
    (folder / "model.json").write_text('{"threshold": 0.75}')
    with pytest.raises(
        BundleError, match=r"1/model\.json has changed since the version was checked"
    ):
        before.open(tmp_path / "cache")
    here.look()
    (after,) = here.look().entries
    assert after.key != before.key
    assert after.open(tmp_path / "cache").bundle.card.decision.threshold == 0.75


@pytest.mark.parametrize("how", ["emptied", "gone", "all gone"])
def test_a_vanished_mount_unloads_nothing(curator, models, how):
    add_version(models, 3)
    here = curator()
    here.look()
    if how == "all gone":
        shutil.rmtree(models)
    elif how == "gone":
        shutil.rmtree(models / "leaves")
    else:
        shutil.rmtree(models / "leaves" / "3")
    lineup = here.look()
    assert versions(lineup) == [3]
    assert "holds no" in lineup.problem or "cannot be read" in lineup.problem


def test_a_folder_that_cannot_be_read_unloads_nothing(curator, models, monkeypatch):
    add_version(models, 3)
    here = curator()
    here.look()

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(lineup_module, "versions_of", refuse)
    lineup = here.look()
    assert versions(lineup) == [3]
    assert "leaves cannot be read: " in lineup.problem


def test_the_last_version_stays_when_it_is_damaged_in_place(curator, models):
    add_version(models, 3)
    here = curator()
    before = here.look()
    add_version(models, 3, b"bad")
    here.look()
    after = here.look()
    assert after.entries == before.entries
    assert after.refusals[0].version == 3


def test_several_versions_and_their_order(curator, models):
    for version in ("0003", "1", "2", "draft", ".publishing-x", "0"):
        add_version(models, version)
    assert versions(curator(versions="all").look()) == [1, 2, 3]
    assert versions(curator(versions="latest:2").look()) == [2, 3]
    assert versions(curator(versions="1,7").look()) == [1]


def test_while_another_process_looks_what_is_served_stays(curator, models, measured, tmp_path):
    add_version(models, 1)
    here = curator()
    before = here.look()
    add_version(models, 2, b"half")
    with hold_lock(tmp_path / "cache" / "curator.lock", 5):
        assert here.look(wait_s=0.1) == before
        fresh = curator()
        assert versions(fresh.look(wait_s=0.1)) == [2], (
            "it has nothing yet, so it looks without the lock"
        )
    assert measured == [1, 2]


def test_a_curator_starts_with_what_was_served(curator, models):
    before = make_lineup(make_entry("leaves", 4))
    add_version(models, 5, b"bad")
    assert versions(curator(before).look()) == [4]


def test_a_lineup_survives_its_file(settings, tmp_path):
    chosen = settings(cache=str(tmp_path / "cache"))
    file = LineupFile(chosen)
    assert file.read() is None
    lineup = make_lineup(
        make_entry("voc", 1),
        make_entry("voc", 2),
        refusals=(Refusal("voc", 3, "damaged"),),
        labels={"voc": {"stable": 1}},
        traffic={"voc": {"stable": 9, "2": 1}},
        problem="odd",
    )
    file.write(lineup)
    assert LineupFile(chosen).read() == file.read() == lineup
    assert file.read() is file.read()  # not read again while it is the same file
    file.write(Lineup())
    assert file.read() == Lineup()
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["lineup.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entries": [{}], "refusals": []}'])
def test_a_damaged_file_counts_as_none(settings, tmp_path, text):
    (tmp_path / "lineup.json").write_text(text)
    assert LineupFile(settings(cache=str(tmp_path))).read() is None


def test_sums_are_such_as_sha256sum_checks(models):
    folder = add_version(models, 1)
    write_sums(folder)
    assert (folder / "SHA256SUMS").read_text().splitlines()[0].endswith("  model.pth")
    assert json.loads((folder / "class_name.json").read_text())
