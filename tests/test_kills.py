"""Programs are replaced after kill -9 without leftovers; a killed supervisord ends all of them."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import requests

from app.gunicorn.listeners import is_free
from tests.helpers import STREET, wait_until
from tests.test_faults import processes_of

LISTEN = "0A"


@pytest.fixture(scope="module")
def server(new_server):
    """Return a separate whole server; each test leaves it ready."""
    live = new_server(workers="1")
    yield live.start().wait_ready()
    live.remove()


def ports_of(server) -> list[int]:
    return [int(url.rpartition(":")[2]) for url in (server.url, server.direct_url)]


def holders(port: int) -> set[int]:
    """Return the processes that listen on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == LISTEN and row[1].endswith(f":{port:04X}")}
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in {f"socket:[{inode}]" for inode in inodes}:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


def family(master: int) -> set[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text()
    return {master, *map(int, children.split())}


def pid_of(server, program: str) -> int:
    return int(server.control("pid", program).stdout.strip() or 0)


def is_replaced(server, program: str, old: int) -> bool:
    """Return whether a program runs as another process and holds its port."""
    return pid_of(server, program) not in (0, old)


def check_replaced(server, program: str, orphans: set[int], port: int) -> None:
    """Assert that a program runs, that only it holds its port, and that its old processes have ended."""
    server.wait_ready()
    assert server.predict(STREET.read_bytes()).status_code == 200
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 15, "orphans")
    assert holders(port) == family(pid_of(server, program))
    wait_until(lambda: "RUNNING" in server.control("status", program).stdout, 15, "RUNNING")


def test_a_killed_nginx_is_replaced_and_its_workers_finish_their_requests(server):
    """Old workers close the port for the new ones, and end with their last request."""
    port, _ = ports_of(server)
    old = pid_of(server, "nginx")
    orphans = family(old) - {old}
    assert orphans
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n")
        client.sendall(b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.recv(99).startswith(b"HTTP/1.1 100 ")
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: is_replaced(server, "nginx", old), 15, "another nginx")
        wait_until(lambda: not holders(port) & orphans, 15, "the port")
        client.sendall(b"abc")
        assert client.recv(99).startswith(b"HTTP/1.1 400 ")
    assert "nginx was killed; ending its workers" in server.log("nginx")
    check_replaced(server, "nginx", orphans, port)


def test_an_nginx_stopped_during_its_replacement_stays_stopped(server):
    old = pid_of(server, "nginx")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: is_replaced(server, "nginx", old), 15, "another nginx")
    assert "stopped" in server.control("stop", "nginx").stdout
    wait_until(lambda: not holders(ports_of(server)[0]), 20, "the port")
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=10)
    assert "started" in server.control("start", "nginx").stdout


def test_a_killed_gunicorn_is_replaced_and_its_workers_hold_no_port(server):
    old = pid_of(server, "gunicorn")
    orphans = family(old) - {old}
    assert orphans
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: is_replaced(server, "gunicorn", old), 15, "another gunicorn")
    check_replaced(server, "gunicorn", orphans, ports_of(server)[1])


@pytest.mark.parametrize("program", ["watch", "logs", "exit-on-fatal"])
def test_a_killed_helper_is_replaced_and_leaves_nothing_behind(server, program):
    wait_until(lambda: "RUNNING" in server.control("status", program).stdout, 15, "RUNNING")
    old = pid_of(server, program)
    children = family(old) - {old}
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: is_replaced(server, program, old), 15, f"another {program}")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 15, "children")
    assert server.predict(STREET.read_bytes()).status_code == 200
    if program == "logs":  # each line is shown once
        time.sleep(0.5)
        answer = server.predict(STREET.read_bytes())
        request_id = answer.headers["X-Request-ID"]
        wait_until(lambda: request_id in server.console(), 15, "the line on the terminal")
        assert server.console().count(request_id) == 1


def test_a_killed_supervisord_ends_every_program_and_the_next_start_is_clean(server):
    (server.folder / "run" / "console").write_text("")
    server.process.kill()
    server.process.wait()
    wait_until(lambda: processes_of(server) == [], 30, "the end of everything")
    assert [holders(port) for port in ports_of(server)] == [set(), set()]
    # A process that cannot be killed may keep the way past nginx: the server starts without it.
    with socket.create_server(("127.0.0.1", ports_of(server)[1])):
        server.start(["scripts/serve"])
        wait_until(lambda: "Ctrl-C stops everything" in server.console(), 60, "the banner")
        assert server.predict(STREET.read_bytes()).status_code == 200
    assert "is taken: until the next start there is no way past nginx" in server.log("gunicorn")


def test_a_reload_keeps_the_addresses_of_the_start():
    """The port is Gunicorn's own by then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert is_free(address)
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert is_free(address)
