"""The roster: who may take connections."""

import os
import signal

import pytest

from app.scoreboard import SLOTS, Roster, State


def worker(roster, state):
    """Claim a slot and put it into a state; return a view of the roster as that worker has it."""
    view = Roster.__new__(Roster)
    view.__dict__.update(roster.__dict__)
    view.enter(roster.claim())
    view.mark(state)
    return view


def test_a_worker_with_a_model_accepts():
    assert worker(Roster(), State.READY).may_accept()


def test_at_the_first_start_loading_workers_accept_so_that_clients_are_told():
    roster = Roster()
    assert worker(roster, State.LOADING).may_accept()
    assert worker(roster, State.FAILED).may_accept()


def test_beside_a_worker_with_a_model_loading_and_failed_ones_do_not_accept():
    roster = Roster()
    loading, failed = worker(roster, State.LOADING), worker(roster, State.FAILED)
    worker(roster, State.READY)
    assert not loading.may_accept()
    assert not failed.may_accept()


def test_after_the_last_ready_worker_died_its_successor_lets_connections_wait():
    roster = Roster()
    dead = worker(roster, State.READY)
    roster.release(dead.slot)
    successor = worker(roster, State.LOADING)
    assert successor.slot == dead.slot
    assert not successor.may_accept()


def test_where_every_load_failed_the_failed_accept_and_tell():
    roster = Roster()
    roster.release(worker(roster, State.READY).slot)
    failed, loading = worker(roster, State.FAILED), worker(roster, State.LOADING)
    assert not failed.may_accept()
    loading.mark(State.FAILED)
    assert failed.may_accept()


def test_a_worker_that_ends_without_draining_has_died():
    roster = Roster()
    for state in (State.DRAINING, State.READY, State.FAILED, State.LOADING):
        roster.release(worker(roster, state).slot)
    assert roster.deaths() == 3


def test_slots_are_given_out_from_the_lowest_and_again():
    roster = Roster()
    assert [roster.claim() for _ in range(3)] == [0, 1, 2]
    roster.release(1)
    assert roster.claim() == 1


def test_a_full_roster_says_so():
    roster = Roster()
    for _ in range(SLOTS):
        roster.claim()
    with pytest.raises(RuntimeError, match="256"):
        roster.claim()


def test_a_child_process_writes_what_its_parent_reads():
    roster = Roster()
    slot = roster.claim()
    child = os.fork()
    if child == 0:
        roster.enter(slot)
        roster.mark(State.READY)
        os._exit(0)
    os.waitpid(child, 0)
    assert roster.states() == {slot: State.READY}


def test_a_worker_without_a_model_leaves_connections_to_one_that_has_one():
    roster = Roster()
    lost, other = worker(roster, State.READY), worker(roster, State.LOADING)
    assert not lost.has_substitute()
    lost.mark(State.LOADING)
    assert not lost.has_substitute()
    other.mark(State.READY)
    assert lost.has_substitute()
    assert not other.has_substitute()


def test_a_worker_that_drains_gives_no_hope_to_those_that_failed():
    roster = Roster()
    draining, failed = worker(roster, State.READY), worker(roster, State.FAILED)
    draining.mark(State.DRAINING)
    assert failed.may_accept()
    draining.mark(State.READY)  # a load that comes through in the meantime
    assert roster.state(draining.slot) is State.DRAINING


def test_a_worker_that_crashes_while_it_drains_has_died():
    roster = Roster()
    roster.release(worker(roster, State.DRAINING).slot, signal.SIGSEGV)
    assert roster.deaths() == 1


def test_a_replacement_gets_the_seat_of_the_dead_also_after_a_reload():
    roster = Roster()
    first = [roster.claim(2, taken) for taken in ((), (0,))]
    reloaded = [roster.claim(2, taken) for taken in ((), (0,))]
    assert (first, reloaded) == ([0, 1], [2, 3])
    for slot in first:
        roster.release(slot)
    for dead, left in ((3, 2), (2, 1)):
        roster.release(dead)
        assert roster.claim(2, [left % 2]) % 2 == dead % 2


def test_a_slot_whose_fork_failed_is_free_again_and_nobody_has_died():
    roster = Roster()
    roster.give_back(roster.claim())
    assert (roster.claim(), roster.deaths()) == (0, 0)
