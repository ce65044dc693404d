"""Images that crash or hang a worker harm at most one worker each, twice, through nginx and Gunicorn."""

import time

import pytest

from tests.faults import draw_fault
from tests.helpers import check_problem, encode, photo_like, wait_until
from tests.load import CLIENTS, Load
from tests.scrape import scrape
from tests.server import Server

GOOD = encode(photo_like(), "PNG")
DEADLINE_S = 4


@pytest.fixture(scope="module")
def start_crashing_server(new_server):
    """Return a factory of servers whose decoders and forward passes can crash or hang."""
    started = []

    def start(workers: int) -> Server:
        rows = {"workers": str(workers), "deadline_s": str(DEADLINE_S)}
        started.append(new_server("tests.mortal:app", **rows))
        return started[-1].start().wait_ready(workers)

    yield start
    for server in started:
        server.remove()


@pytest.fixture(scope="module")
def crashing_server(start_crashing_server):
    """Return one with four workers."""
    return start_crashing_server(4)


def deaths(server) -> int:
    """Return the number of workers that have died since the start."""
    return int(scrape(server).total("serving_worker_deaths_total"))


@pytest.mark.parametrize("fault", ["crash in decoding", "kill in decoding", "exit in the forward"])
def test_a_poison_image_kills_two_workers_at_most_and_is_then_refused(crashing_server, fault):
    crashing_server.wait_ready(4)
    before = deaths(crashing_server)
    poison = draw_fault(fault)
    for _ in range(3):
        response = crashing_server.predict(poison)
        assert "ended two workers" in check_problem(response, 500, "quarantined")
    assert deaths(crashing_server) - before == 2, crashing_server.log("gunicorn")
    assert crashing_server.predict(GOOD).status_code == 200


@pytest.mark.parametrize("fault", ["hang in decoding", "hang in the forward"])
def test_a_stuck_thread_ends_its_worker_within_twice_the_deadline(crashing_server, fault):
    crashing_server.wait_ready(4)
    before = deaths(crashing_server)
    began = time.monotonic()
    response = crashing_server.predict(draw_fault(fault))
    assert response.status_code in (500, 504), response.text
    assert crashing_server.predict(GOOD).status_code == 200
    wait_until(lambda: deaths(crashing_server) > before, 2 * DEADLINE_S)
    assert time.monotonic() - began < 2 * DEADLINE_S
    crashing_server.wait_ready(4)


def test_other_clients_lose_no_request_to_a_poison_image(crashing_server):
    crashing_server.wait_ready(4)
    before = deaths(crashing_server)
    load = Load(crashing_server, data=GOOD)
    with load.running():
        load.wait_for_more()
        poison = draw_fault("crash in decoding", shade=1)
        assert crashing_server.predict(poison).status_code == 500
        load.wait_for_more()
    load.check_nothing_lost()
    assert deaths(crashing_server) - before == 2, crashing_server.log("gunicorn")


@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_in_a_row_lose_no_request(start_crashing_server, workers):
    server = start_crashing_server(workers)
    load = Load(server, data=GOOD)
    with load.running():
        for _ in range(20):
            load.wait_for_more(2 * CLIENTS)  # so that no request meets all the kills
            victim = server.worker_pids()[0]
            server.kill_worker(victim)
            wait_until(lambda gone=victim: gone not in server.worker_pids(), 30)
        load.wait_for_more()
    load.check_nothing_lost()
    assert deaths(server) == 20
