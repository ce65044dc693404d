"""The scoreboard decides which workers accept connections."""

import os
import signal

import pytest

from app.scoreboard import SLOTS, Scoreboard, State


def worker(scoreboard, state):
    """Claim a slot and put it into a state; return that worker's view of the scoreboard."""
    view = Scoreboard.__new__(Scoreboard)
    view.__dict__.update(scoreboard.__dict__)
    view.enter(scoreboard.claim())
    view.mark(state)
    return view


def test_a_worker_with_a_model_accepts():
    assert worker(Scoreboard(), State.READY).may_accept()


def test_loading_workers_accept_at_the_first_start_to_answer_clients():
    scoreboard = Scoreboard()
    assert worker(scoreboard, State.LOADING).may_accept()
    assert worker(scoreboard, State.FAILED).may_accept()


def test_loading_and_failed_workers_do_not_accept_beside_one_with_a_model():
    scoreboard = Scoreboard()
    loading, failed = worker(scoreboard, State.LOADING), worker(scoreboard, State.FAILED)
    worker(scoreboard, State.READY)
    assert not loading.may_accept()
    assert not failed.may_accept()


def test_the_successor_of_the_last_ready_worker_lets_connections_wait():
    scoreboard = Scoreboard()
    dead = worker(scoreboard, State.READY)
    scoreboard.release(dead.slot)
    successor = worker(scoreboard, State.LOADING)
    assert successor.slot == dead.slot
    assert not successor.may_accept()


def test_failed_workers_accept_and_report_if_every_load_failed():
    scoreboard = Scoreboard()
    scoreboard.release(worker(scoreboard, State.READY).slot)
    failed, loading = worker(scoreboard, State.FAILED), worker(scoreboard, State.LOADING)
    assert not failed.may_accept()
    loading.mark(State.FAILED)
    assert failed.may_accept()


def test_a_worker_that_ends_without_draining_has_died():
    scoreboard = Scoreboard()
    for state in (State.DRAINING, State.READY, State.FAILED, State.LOADING):
        scoreboard.release(worker(scoreboard, state).slot)
    assert scoreboard.deaths() == 3


def test_slots_are_assigned_from_the_lowest_and_reused():
    scoreboard = Scoreboard()
    assert [scoreboard.claim() for _ in range(3)] == [0, 1, 2]
    scoreboard.release(1)
    assert scoreboard.claim() == 1


def test_a_full_scoreboard_raises_an_error():
    scoreboard = Scoreboard()
    for _ in range(SLOTS):
        scoreboard.claim()
    with pytest.raises(RuntimeError, match="256"):
        scoreboard.claim()


def test_a_parent_reads_the_values_that_its_child_writes():
    scoreboard = Scoreboard()
    slot = scoreboard.claim()
    child = os.fork()
    if child == 0:
        scoreboard.enter(slot)
        scoreboard.mark(State.READY)
        os._exit(0)
    os.waitpid(child, 0)
    assert scoreboard.states() == {slot: State.READY}


def test_a_worker_without_a_model_leaves_connections_to_one_that_has_one():
    scoreboard = Scoreboard()
    lost, other = worker(scoreboard, State.READY), worker(scoreboard, State.LOADING)
    assert not lost.has_substitute()
    lost.mark(State.LOADING)
    assert not lost.has_substitute()
    other.mark(State.READY)
    assert lost.has_substitute()
    assert not other.has_substitute()


def test_failed_workers_do_not_wait_for_a_draining_one():
    scoreboard = Scoreboard()
    draining, failed = worker(scoreboard, State.READY), worker(scoreboard, State.FAILED)
    draining.mark(State.DRAINING)
    assert failed.may_accept()
    draining.mark(State.READY)  # a load that finishes in the meantime
    assert scoreboard.state(draining.slot) is State.DRAINING


def test_a_worker_that_crashes_while_it_drains_has_died():
    scoreboard = Scoreboard()
    scoreboard.release(worker(scoreboard, State.DRAINING).slot, signal.SIGSEGV)
    assert scoreboard.deaths() == 1


def test_a_replacement_gets_the_placement_of_the_dead_worker_even_after_a_reload():
    scoreboard = Scoreboard()
    first = [scoreboard.claim(2, taken) for taken in ((), (0,))]
    reloaded = [scoreboard.claim(2, taken) for taken in ((), (0,))]
    assert (first, reloaded) == ([0, 1], [2, 3])
    for slot in first:
        scoreboard.release(slot)
    for dead, left in ((3, 2), (2, 1)):
        scoreboard.release(dead)
        assert scoreboard.claim(2, [left % 2]) % 2 == dead % 2


def test_a_slot_whose_fork_failed_is_free_again_and_counts_no_death():
    scoreboard = Scoreboard()
    scoreboard.cancel_claim(scoreboard.claim())
    assert (scoreboard.claim(), scoreboard.deaths()) == (0, 0)
