"""Memory, CPU pressure and processes are read from files like the kernel's."""

import os
import subprocess
import sys
import time

import pytest

from app.system.gpus import list_gpus
from app.system.machine import (
    process_memory,
    process_peak,
    processor,
    read_cpu_pressure,
    read_host_memory,
    read_process,
)
from tests.helpers import ROOT

MIB = 1 << 20


def test_cpu_pressure_is_the_containers_if_available(tmp_path):
    line = "some avg10=0.00 avg60=1.50 avg300=2.00 total={}\nfull avg10=0.00 total=7\n"
    host = tmp_path / "cpu"
    assert read_cpu_pressure(tmp_path, host) is None
    host.write_text(line.format(2_500_000))
    assert read_cpu_pressure(tmp_path, host) == 2.5
    (tmp_path / "cpu.pressure").write_text(line.format(1_000_000))
    assert read_cpu_pressure(tmp_path, host) == 1.0


def test_the_usage_of_a_process_is_readable_until_it_has_ended():
    used = read_process(os.getpid())
    assert used.cpu_s == pytest.approx(time.process_time(), abs=0.1)
    assert 10 * MIB < used.memory < read_host_memory().total
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_process(child.pid) is None


def test_this_machine_can_be_read():
    memory = read_host_memory()
    assert 0 < memory.free <= memory.total
    assert 10 * MIB < process_memory() < memory.total
    assert processor()
    assert all(0 < gpu.free <= gpu.total for gpu in list_gpus())


def test_all_pages_count_if_the_kernel_reports_no_proportional_size(tmp_path):
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t    900 kB\nVmRSS:\t     700 kB\n")
    assert process_memory(tmp_path) == 700 * 1024
    assert process_peak(tmp_path) == 900 * 1024
    (tmp_path / "smaps_rollup").write_text("00-ff ---p [rollup]\nRss:  700 kB\nPss:   400 kB\n")
    assert process_memory(tmp_path) == 400 * 1024
    assert process_peak(tmp_path) == 600 * 1024, "what was held, but for what is shared"
    (tmp_path / "status").write_text("Name:\tx\nVmRSS:\t     700 kB\n")
    assert process_peak(tmp_path) == 400 * 1024


def test_a_peak_stays_after_its_memory_is_freed():
    program = (
        "from app.system.machine import process_memory, process_peak\n"
        "before = process_memory()\n"
        "held = bytearray(64 << 20)\n"
        "del held\n"
        "assert process_memory() - before < 8 << 20\n"
        "assert process_peak() - before > 56 << 20\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_process_can_be_the_first_oom_victim():
    code = (
        "from app.system.machine import prefer_as_oom_victim; from pathlib import Path; "
        "prefer_as_oom_victim(); "
        "print(Path('/proc/self/oom_score_adj').read_text())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "1000", done.stderr
