"""Limits of control groups are read from trees of files as the kernel, Docker and systemd show them."""

import pytest

from app import settings as settings_module
from app.control.budgets import request_budget_bytes
from app.system import machine
from app.system.cgroup import MemoryLimit, cpu_quota, memory_limits
from app.system.machine import Memory, count_cores, read_host_memory, total_memory

MIB = 1 << 20
NONE_V1 = 9223372036854771712  # the value of version 1 without a limit
MEMINFO = "MemTotal:       4194304 kB\nMemFree:  102400 kB\nMemAvailable:    2097152 kB\n"
V2_MOUNT = (
    "31 23 0:28 {group} /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)
V1_MOUNT = "35 31 0:32 {group} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"


@pytest.fixture
def tree(tmp_path):
    """Return a factory of machines: this process's groups, its mounts, and files by their paths."""

    def make(groups, mounts, files):
        files = {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": groups,
            "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/root rw\n" + mounts,
        } | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}")
        return tmp_path

    return make


def v2(folder, limit, used, cached=0, high="max"):
    """Return the files of a group of version 2."""
    return {
        f"{folder}memory.max": f"{limit}\n",
        f"{folder}memory.high": f"{high}\n",
        f"{folder}memory.current": f"{used}\n",
        f"{folder}memory.stat": f"anon 5\nactive_file {cached // 2}\ninactive_file {cached // 2}\n",
    }


def v1(folder, limit, used, cached=0, hierarchical=NONE_V1):
    """Return the files of a group of version 1."""
    return {
        f"{folder}memory.limit_in_bytes": f"{limit}\n",
        f"{folder}memory.usage_in_bytes": f"{used}\n",
        f"{folder}memory.stat": f"inactive_file 1\ntotal_inactive_file {cached // 2}\ntotal_active_file {cached // 2}\n"
        f"hierarchical_memory_limit {hierarchical}\n",
    }


def test_a_container_of_version_2_has_its_limit_and_its_page_cache_is_free(tree):
    root = tree("0::/\n", V2_MOUNT.format(group="/"), v2("", 256 * MIB, 200 * MIB, 50 * MIB))
    assert read_host_memory(root) == Memory(106 * MIB, 256 * MIB)


def test_a_container_of_version_1_has_its_limit_and_its_page_cache_is_free(tree):
    """Docker names the whole path in /proc/self/cgroup and mounts the container's own group alone."""
    root = tree(
        "4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n",
        V1_MOUNT.format(group="/docker/1f", name="memory"),
        v1("memory/", 700 * MIB, 100 * MIB, 40 * MIB),
    )
    assert read_host_memory(root) == Memory(640 * MIB, 700 * MIB)


def test_a_limit_above_the_container_that_it_cannot_see_counts_in_version_1(tree):
    root = tree(
        "4:memory:/docker/1f\n",
        V1_MOUNT.format(group="/docker/1f", name="memory"),
        v1("memory/", NONE_V1, 100 * MIB, hierarchical=512 * MIB),
    )
    assert read_host_memory(root) == Memory(412 * MIB, 512 * MIB)


def test_the_tightest_limit_of_nested_groups_counts(tree):
    """Systemd sets MemoryMax of the service and of its slice, and none of the machine."""
    mounts = V2_MOUNT.format(group="/")
    files = v2("app.slice/web.service/", 900 * MIB, 100 * MIB) | v2(
        "app.slice/", 800 * MIB, 700 * MIB
    )
    root = tree("0::/app.slice/web.service\n", mounts, files)
    assert memory_limits(root) == [
        MemoryLimit(800 * MIB, 900 * MIB),
        MemoryLimit(100 * MIB, 800 * MIB),
    ]
    assert read_host_memory(root) == Memory(100 * MIB, 800 * MIB)


def test_limits_of_nested_groups_of_version_1_count_too(tree):
    mounts = V1_MOUNT.format(group="/", name="memory")
    files = v1("memory/a/b/", NONE_V1, 10 * MIB) | v1("memory/a/", 300 * MIB, 200 * MIB)
    assert read_host_memory(tree("4:memory:/a/b\n", mounts, files)) == Memory(100 * MIB, 300 * MIB)


def test_memory_high_is_a_limit(tree):
    mounts = V2_MOUNT.format(group="/")
    root = tree("0::/\n", mounts, v2("", "max", 100 * MIB, high=400 * MIB))
    assert read_host_memory(root) == Memory(300 * MIB, 400 * MIB)


def test_a_limit_above_the_hosts_memory_or_none_leaves_the_hosts_memory(tree):
    host = Memory(2048 * MIB, 4096 * MIB)
    mounts = V2_MOUNT.format(group="/")
    assert read_host_memory(tree("0::/\n", mounts, v2("", "max", 0))) == host
    assert read_host_memory(tree("0::/\n", mounts, v2("", 1 << 40, 0))) == host
    assert read_host_memory(tree("", "", {})) == host


def test_a_group_of_another_namespace_is_read_at_its_mount_point(tree):
    root = tree("0::/../other\n", V2_MOUNT.format(group="/"), v2("", 64 * MIB, 0))
    assert read_host_memory(root).total == 64 * MIB


def test_a_mount_point_with_a_blank_is_found(tree, tmp_path):
    mount = "31 23 0:28 / /sys/fs/cgroup/my\\040groups rw - cgroup2 none rw\n"
    root = tree("0::/\n", mount, v2("my groups/", 64 * MIB, 0))
    assert read_host_memory(root).total == 64 * MIB


@pytest.mark.parametrize(
    ("text", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("odd", None)]
)
def test_the_quota_of_version_2_is_read(tree, text, quota):
    root = tree("0::/\n", V2_MOUNT.format(group="/"), {"cpu.max": text})
    assert cpu_quota(root) == quota


@pytest.mark.parametrize(("quota", "found"), [(50_000, 0.5), (-1, None)])
def test_the_quota_of_version_1_is_read(tree, quota, found):
    """Cpu and cpuacct are often one hierarchy."""
    mount = "32 31 0:29 /docker/1f /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    files = {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cpu_quota(tree("1:cpu,cpuacct:/docker/1f\n", mount, files)) == found


def test_the_tightest_quota_of_nested_groups_counts(tree):
    files = {"a/b/cpu.max": "400000 100000", "a/cpu.max": "120000 100000"}
    assert cpu_quota(tree("0::/a/b\n", V2_MOUNT.format(group="/"), files)) == 1.2


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (1, 1), (1.5, 1), (0.2, 1), (3.9, 3), (16, 8)]
)
def test_a_fraction_of_a_core_is_not_counted(monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert count_cores() == cores


@pytest.mark.parametrize(
    ("total_mib", "decode", "bodies"),
    [(64_000, 512, 256), (2048, 256, 128), (700, 87, 64), (100, 64, 64)],
)
def test_the_memory_budget_of_requests_shrinks_with_the_memory(
    settings, monkeypatch, total_mib, decode, bodies
):
    monkeypatch.setattr(settings_module, "total_memory", lambda: total_mib * MIB)
    found = settings(decode_threads="1")
    assert found.decode_memory_bytes == decode * MIB
    assert found.max_bodies_bytes == bodies * MIB
    assert request_budget_bytes(found) == (24 + decode + bodies) * MIB
    assert settings(decode_memory_mb="512").decode_memory_bytes == 512 * MIB


def test_the_memory_of_this_machine_is_known():
    assert 64 * MIB < total_memory() < 1 << 46
