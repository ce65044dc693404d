"""The shared record of inputs that crash workers tracks suspects, trials and blocked inputs."""

import os
import signal
import subprocess
import sys

import pytest

from app import quarantine as module
from app.errors import ClientGone, DeadlinePassed, UnreadableImage
from app.gunicorn.exits import ending_signal
from app.quarantine import MAX_ACTIVE_INPUTS, MAX_RECORDED, Quarantine, Verdict
from app.scoreboard import Scoreboard, State
from app.serving.thread_pool import NeedsTrial
from app.serving.trials import Trials


@pytest.fixture
def ward():
    """Return a record with places for three workers."""
    return Quarantine(3)


def die(ward, *digests, slot=0, tried=b"", is_external=False):
    """Kill a worker with inputs in progress, optionally during a trial; return the blocked inputs."""
    ward.active_inputs(slot).hold(digests)
    ward.set_trial(slot, tried)
    return ward.record_crash(slot, is_external=is_external)


def block(ward, digest):
    """Let an input crash two workers."""
    assert die(ward, digest) == []
    assert die(ward, digest, slot=1, tried=digest) == [digest]


def test_an_input_that_crashes_a_worker_and_then_one_that_tries_it_is_blocked(ward):
    poison, other = ward.digest(b"poison"), ward.digest(b"other")
    assert die(ward, poison, other) == []
    assert (ward.verdict(poison), ward.verdict(other)) == (Verdict.SUSPECT, Verdict.SUSPECT)
    assert die(ward, poison, slot=1, tried=poison) == [poison]
    assert (ward.verdict(poison), ward.verdict(other)) == (Verdict.BLOCKED, Verdict.SUSPECT)
    assert ward.verdict(ward.digest(b"anything else")) is Verdict.CLEAR


def test_an_input_in_progress_at_every_crash_is_never_blocked_without_a_trial(ward):
    popular = ward.digest(b"the image that everybody sends")
    for number in range(20):
        poison = ward.digest(b"%d" % number)
        assert die(ward, popular, poison) == []
        assert die(ward, popular, poison, slot=1, tried=poison) == [poison]
    assert ward.verdict(popular) is Verdict.SUSPECT


def test_no_input_has_no_digest_and_no_verdict(ward):
    nothing = ward.digest(b"")
    assert nothing == b""
    die(ward, nothing)
    die(ward, nothing, tried=nothing)
    assert ward.verdict(nothing) is Verdict.CLEAR


def test_a_suspect_that_passes_its_trial_is_cleared(ward):
    innocent = ward.digest(b"innocent")
    die(ward, innocent)
    ward.clear_suspect(innocent)
    assert ward.verdict(innocent) is Verdict.CLEAR
    block(ward, innocent)


def test_clearing_an_input_does_not_unblock_it(ward):
    poison = ward.digest(b"poison")
    block(ward, poison)
    ward.clear_suspect(poison)
    assert ward.verdict(poison) is Verdict.BLOCKED


def test_a_released_input_gets_no_points(ward):
    digest = ward.digest(b"done")
    records = ward.active_inputs(0)
    records.release(records.hold([digest]))
    assert ward.record_crash(0, is_external=False) == []
    assert ward.verdict(digest) is Verdict.CLEAR


def test_a_kill_from_outside_counts_half_unless_the_input_was_alone(ward):
    one, other = ward.digest(b"1"), ward.digest(b"2")
    assert die(ward, one, other, is_external=True) == []
    for _ in range(2):
        assert die(ward, one, other, tried=one, is_external=True) == []
    assert die(ward, one, other, tried=one, is_external=True) == [one]
    alone = ward.digest(b"3")
    assert die(ward, alone, is_external=True) == []
    assert die(ward, alone, tried=alone, is_external=True) == [alone]


def test_eight_copies_of_an_image_do_not_count_as_alone(ward):
    image = ward.digest(b"1")
    die(ward, *[image] * 8, is_external=True)
    assert die(ward, image, tried=image, is_external=False) == []


def test_a_worker_that_ends_itself_blames_only_the_culprit(ward):
    culprit, neighbor = ward.digest(b"1"), ward.digest(b"2")
    records = ward.active_inputs(2)
    records.hold([neighbor, culprit])
    records.keep_only([b"", culprit])
    ward.record_crash(2, is_external=False)
    assert (ward.verdict(culprit), ward.verdict(neighbor)) == (Verdict.SUSPECT, Verdict.CLEAR)


def test_more_inputs_than_places_do_no_harm(ward):
    records = ward.active_inputs(0)
    digests = [ward.digest(b"%d" % number) for number in range(MAX_ACTIVE_INPUTS + 10)]
    places = records.hold(digests)
    assert len(places) == MAX_ACTIVE_INPUTS
    records.release(places)
    assert len(records.hold(digests)) == MAX_ACTIVE_INPUTS


def test_the_oldest_crash_is_forgotten_first(ward):
    first = ward.digest(b"first")
    die(ward, first)
    for number in range(MAX_RECORDED):
        die(ward, ward.digest(b"%d" % number))
    assert ward.verdict(first) is Verdict.CLEAR


def test_a_request_is_found_inside_another_worker_until_that_is_cleared(ward):
    request = bytes(range(16))
    ward.enter(1, request)
    assert ward.is_in_flight(request, [0, 1])
    assert not ward.is_in_flight(request, [0, 2])
    ward.clear(1)
    assert not ward.is_in_flight(request, [0, 1])
    ward.enter(1, request)
    ward.leave(1, request)
    assert not ward.is_in_flight(request, [0, 1])


def test_a_request_whose_place_is_taken_disturbs_no_other(ward):
    request, other = bytes(range(16)), bytes(range(4)) + bytes(12)
    ward.enter(0, request)
    ward.enter(0, other)
    ward.leave(0, other)
    assert ward.is_in_flight(request, [0])
    assert not ward.is_in_flight(other, [0])


def test_a_request_that_sees_three_workers_crash_is_known_and_kills_do_not_count(ward):
    request = bytes(range(16))
    for slot in range(3):
        assert not ward.has_seen_crashes(request)
        ward.enter(slot, request)
        ward.record_crash(slot, is_external=True)
        ward.enter(slot, request)
        ward.record_crash(slot, is_external=False)
    assert ward.has_seen_crashes(request)


def test_a_sigkill_is_from_outside_unless_the_kernel_ran_out_of_memory(ward, monkeypatch):
    kills = [5]
    monkeypatch.setattr(module, "count_oom_kills", lambda: kills[0])
    ward = Quarantine(1)
    assert ward.is_external_kill(signal.SIGKILL)
    kills[0] = 6
    assert not ward.is_external_kill(signal.SIGKILL)
    assert ward.is_external_kill(signal.SIGKILL)
    assert not ward.is_external_kill(signal.SIGSEGV)
    assert not ward.is_external_kill(0)
    assert ward.is_external_kill(None), "nothing is known against the inputs"


def test_only_the_inputs_of_a_crashed_worker_get_points():
    scoreboard = Scoreboard()
    digest = scoreboard.quarantine.digest(b"in hand")
    for state, verdict in ((State.DRAINING, Verdict.CLEAR), (State.READY, Verdict.SUSPECT)):
        slot = scoreboard.claim()
        scoreboard.enter(slot)
        scoreboard.mark(state)
        scoreboard.quarantine.active_inputs(slot).hold([digest])
        scoreboard.release(slot)
        assert scoreboard.quarantine.verdict(digest) is verdict


@pytest.mark.parametrize(
    ("program", "number"),
    [("import os; os.abort()", signal.SIGABRT), ("raise SystemExit(3)", 0)],
)
def test_how_a_child_ended_is_known_before_it_is_reaped(program, number):
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there
    assert ending_signal(child.pid) == number
    child.wait()
    assert ending_signal(child.pid) is None


def test_a_suspect_is_cleared_by_an_answer_and_by_its_own_fault_but_not_by_time(ward):
    trials = Trials(ward, 0)
    digest = ward.digest(b"suspect")

    def attempt(error=None):
        def run(on_trial):
            if not on_trial:
                raise NeedsTrial(digest)
            if error:
                raise error
            return "answer"

        return run

    die(ward, digest)
    for error in (DeadlinePassed("late"), ClientGone("gone")):
        with pytest.raises(type(error)):
            trials.run(attempt(error))
        assert ward.verdict(digest) is Verdict.SUSPECT
    with pytest.raises(UnreadableImage):
        trials.run(attempt(UnreadableImage("damaged")))
    assert ward.verdict(digest) is Verdict.CLEAR
    die(ward, digest)
    assert trials.run(attempt()) == "answer"
    assert ward.verdict(digest) is Verdict.CLEAR
