"""Metrics on a full disk end no process and keep earlier counts."""

import logging
import time

from app.system.metric_files import RETRY_S, AllocatedDict
from tests.disks import on_small_disk

# Import, first versions, many labels: as a worker does it. The rest of the disk is filled first.
COUNT = """
import os, sys
from pathlib import Path
folder, spare = Path(sys.argv[1]), {spare}
(folder / 'metrics').mkdir(exist_ok=True)
os.environ['PROMETHEUS_MULTIPROC_DIR'] = str(folder / 'metrics')
with (folder / 'fill').open('wb', buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        file.truncate(max(0, file.tell() - spare * 1024))
from app import metrics
for label in range({labels}):
    metrics.labels_given.labels('voc', '1', f'label {{label}}').inc()
    metrics.labels_given.labels('voc', '1', f'label {{label}}').inc()
text = metrics.expose([])[0].decode()
first = 'serving_labels_total{{label="label 0",model="voc",version="1"}} 2.0'
print(text.count('serving_labels_total{{'), first in text)
"""


def count(tmp_path, spare, labels):
    disk = tmp_path / "disk"
    disk.mkdir(parents=True)
    done = on_small_disk(disk, 2000, COUNT.format(spare=spare, labels=labels))
    assert done.returncode == 0, (done.returncode, done.stderr)  # -7 is SIGBUS
    seen, correct = done.stdout.split()
    return int(seen), correct == "True", done.stderr.splitlines()


def test_a_worker_that_starts_on_a_full_disk_keeps_its_own_counts(tmp_path):
    for spare in (0, 4, 100):
        seen, correct, lines = count(tmp_path / str(spare), spare, 2000)
        assert (seen, correct) == (2000, True)
        (line,) = lines
        assert line.startswith("the metrics cannot be written: ")
        assert "No space left" in line
        assert line.endswith("this worker counts for itself alone until it is replaced")


def test_a_disk_that_fills_up_later_costs_only_new_series(tmp_path):
    """The disk has room for the first files and for the counters to grow once."""
    seen, correct, lines = count(tmp_path, 64 * 3 + 70, 2000)
    assert correct
    assert 500 < seen < 2000
    (line,) = lines
    assert line.endswith("new series are counted by this worker alone")


def test_all_is_counted_if_there_is_disk_space(tmp_path):
    assert count(tmp_path, 1900, 2000) == (2000, True, [])


def test_series_without_a_file_get_one_once_there_is_disk_space(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.ERROR)
    counts = AllocatedDict(str(tmp_path / "counter_0.db"))
    real = counts._make_room

    def refuse(key):
        raise OSError(28, "No space left on device")

    counts._make_room = refuse
    counts.write_value("a", 3.0, 1.0)
    counts.write_value("b", 4.0, 1.0)
    assert counts.read_value("a") == (3.0, 1.0)
    assert len(caplog.messages) == 1
    assert not list(AllocatedDict.read_all_values_from_file(tmp_path / "counter_0.db"))
    counts._make_room = real
    later = time.monotonic() + RETRY_S
    monkeypatch.setattr("time.monotonic", lambda: later)
    counts.write_value("a", 5.0, 2.0)
    assert counts.read_value("b") == (4.0, 1.0)
    found = AllocatedDict.read_all_values_from_file(tmp_path / "counter_0.db")
    assert {key: value for key, value, *_ in found} == {"a": 5.0, "b": 4.0}
    counts.close()


def test_a_metric_file_is_fully_allocated_even_when_it_grows(tmp_path):
    path = tmp_path / "counter_0.db"
    counts = AllocatedDict(str(path))
    for number in range(3000):
        counts.write_value(f"key {number}", 1.0, 0.0)
    counts.close()
    found = path.stat()
    assert found.st_size > 1 << 16
    assert found.st_blocks * 512 >= found.st_size
