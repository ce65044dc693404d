"""What memory there is, read from files like the kernel's."""

import pytest

from app.machine import Memory, list_gpus, process_memory, processor, read_host_memory

MIB = 1 << 20
MEMINFO = "MemTotal:       1048576 kB\nMemFree:  102400 kB\nMemAvailable:    524288 kB\n"


@pytest.fixture
def host(tmp_path):
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path / "meminfo"


def write_cgroup(folder, limit, used, inactive_file):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\n")
    return folder


def test_without_a_container_the_host_counts(host, tmp_path):
    assert read_host_memory(host, tmp_path) == Memory(512 * MIB, 1024 * MIB)
    assert read_host_memory(host, write_cgroup(tmp_path, "max", 0, 0)) == Memory(
        512 * MIB, 1024 * MIB
    )


def test_a_containers_limit_counts_where_it_is_less_and_its_page_cache_is_free(host, tmp_path):
    cgroup = write_cgroup(tmp_path, 256 * MIB, 200 * MIB, 50 * MIB)
    assert read_host_memory(host, cgroup) == Memory(106 * MIB, 256 * MIB)


def test_a_wide_limit_is_no_limit(host, tmp_path):
    cgroup = write_cgroup(tmp_path, 4096 * MIB, 0, 0)
    assert read_host_memory(host, cgroup) == Memory(512 * MIB, 1024 * MIB)


def test_this_machine_can_be_read():
    memory = read_host_memory()
    assert 0 < memory.free <= memory.total
    assert 10 * MIB < process_memory() < memory.total
    assert processor()
    assert all(0 < gpu.free <= gpu.total for gpu in list_gpus())
