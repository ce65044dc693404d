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
def crash_record():
    """Return a record with places for three workers."""
    return Quarantine(3)


def crash_worker(crash_record, *digests, slot=0, tried=b"", is_external=False):
    """Kill a worker with inputs in progress, optionally during a trial; return the blocked inputs."""
    crash_record.active_inputs(slot).hold(digests)
    crash_record.set_trial(slot, tried)
    return crash_record.record_crash(slot, is_external=is_external)


def block_input(crash_record, digest):
    """Let an input crash two workers."""
    assert crash_worker(crash_record, digest) == []
    assert crash_worker(crash_record, digest, slot=1, tried=digest) == [digest]


def test_an_input_that_crashes_a_worker_and_then_one_that_tries_it_is_blocked(crash_record):
    poison, other = crash_record.digest(b"poison"), crash_record.digest(b"other")
    assert crash_worker(crash_record, poison, other) == []
    assert (crash_record.verdict(poison), crash_record.verdict(other)) == (
        Verdict.SUSPECT,
        Verdict.SUSPECT,
    )
    assert crash_worker(crash_record, poison, slot=1, tried=poison) == [poison]
    assert (crash_record.verdict(poison), crash_record.verdict(other)) == (
        Verdict.BLOCKED,
        Verdict.SUSPECT,
    )
    assert crash_record.verdict(crash_record.digest(b"anything else")) is Verdict.CLEAR


def test_an_input_in_progress_at_every_crash_is_never_blocked_without_a_trial(crash_record):
    popular = crash_record.digest(b"the image that everybody sends")
    for number in range(20):
        poison = crash_record.digest(b"%d" % number)
        assert crash_worker(crash_record, popular, poison) == []
        assert crash_worker(crash_record, popular, poison, slot=1, tried=poison) == [poison]
    assert crash_record.verdict(popular) is Verdict.SUSPECT


def test_no_input_has_no_digest_and_no_verdict(crash_record):
    nothing = crash_record.digest(b"")
    assert nothing == b""
    crash_worker(crash_record, nothing)
    crash_worker(crash_record, nothing, tried=nothing)
    assert crash_record.verdict(nothing) is Verdict.CLEAR


def test_a_suspect_that_passes_its_trial_is_cleared(crash_record):
    innocent = crash_record.digest(b"innocent")
    crash_worker(crash_record, innocent)
    crash_record.clear_suspect(innocent)
    assert crash_record.verdict(innocent) is Verdict.CLEAR
    block_input(crash_record, innocent)


def test_clearing_an_input_does_not_unblock_it(crash_record):
    poison = crash_record.digest(b"poison")
    block_input(crash_record, poison)
    crash_record.clear_suspect(poison)
    assert crash_record.verdict(poison) is Verdict.BLOCKED


def test_a_released_input_gets_no_penalty(crash_record):
    digest = crash_record.digest(b"done")
    records = crash_record.active_inputs(0)
    records.release(records.hold([digest]))
    assert crash_record.record_crash(0, is_external=False) == []
    assert crash_record.verdict(digest) is Verdict.CLEAR


def test_a_kill_from_outside_counts_half_unless_the_input_was_alone(crash_record):
    one, other = crash_record.digest(b"1"), crash_record.digest(b"2")
    assert crash_worker(crash_record, one, other, is_external=True) == []
    for _ in range(2):
        assert crash_worker(crash_record, one, other, tried=one, is_external=True) == []
    assert crash_worker(crash_record, one, other, tried=one, is_external=True) == [one]
    alone = crash_record.digest(b"3")
    assert crash_worker(crash_record, alone, is_external=True) == []
    assert crash_worker(crash_record, alone, tried=alone, is_external=True) == [alone]


def test_eight_copies_of_an_image_do_not_count_as_alone(crash_record):
    image = crash_record.digest(b"1")
    crash_worker(crash_record, *[image] * 8, is_external=True)
    assert crash_worker(crash_record, image, tried=image, is_external=False) == []


def test_a_worker_that_ends_itself_blames_only_the_culprit(crash_record):
    culprit, neighbor = crash_record.digest(b"1"), crash_record.digest(b"2")
    records = crash_record.active_inputs(2)
    records.hold([neighbor, culprit])
    records.keep_only([b"", culprit])
    crash_record.record_crash(2, is_external=False)
    assert (crash_record.verdict(culprit), crash_record.verdict(neighbor)) == (
        Verdict.SUSPECT,
        Verdict.CLEAR,
    )


def test_more_inputs_than_places_do_no_harm(crash_record):
    records = crash_record.active_inputs(0)
    digests = [crash_record.digest(b"%d" % number) for number in range(MAX_ACTIVE_INPUTS + 10)]
    places = records.hold(digests)
    assert len(places) == MAX_ACTIVE_INPUTS
    records.release(places)
    assert len(records.hold(digests)) == MAX_ACTIVE_INPUTS


def test_the_oldest_crash_is_forgotten_first(crash_record):
    first = crash_record.digest(b"first")
    crash_worker(crash_record, first)
    for number in range(MAX_RECORDED):
        crash_worker(crash_record, crash_record.digest(b"%d" % number))
    assert crash_record.verdict(first) is Verdict.CLEAR


def test_a_request_is_found_inside_another_worker_until_that_is_cleared(crash_record):
    request = bytes(range(16))
    crash_record.enter(1, request)
    assert crash_record.is_in_flight(request, [0, 1])
    assert not crash_record.is_in_flight(request, [0, 2])
    crash_record.clear(1)
    assert not crash_record.is_in_flight(request, [0, 1])
    crash_record.enter(1, request)
    crash_record.leave(1, request)
    assert not crash_record.is_in_flight(request, [0, 1])


def test_a_request_whose_place_is_taken_disturbs_no_other(crash_record):
    request, other = bytes(range(16)), bytes(range(4)) + bytes(12)
    crash_record.enter(0, request)
    crash_record.enter(0, other)
    crash_record.leave(0, other)
    assert crash_record.is_in_flight(request, [0])
    assert not crash_record.is_in_flight(other, [0])


def test_a_request_that_sees_three_workers_crash_is_known_and_kills_do_not_count(crash_record):
    request = bytes(range(16))
    for slot in range(3):
        assert not crash_record.has_seen_crashes(request)
        crash_record.enter(slot, request)
        crash_record.record_crash(slot, is_external=True)
        crash_record.enter(slot, request)
        crash_record.record_crash(slot, is_external=False)
    assert crash_record.has_seen_crashes(request)


def test_a_sigkill_is_from_outside_unless_the_kernel_ran_out_of_memory(crash_record, monkeypatch):
    kills = [5]
    monkeypatch.setattr(module, "count_oom_kills", lambda: kills[0])
    crash_record = Quarantine(1)
    assert crash_record.is_external_kill(signal.SIGKILL)
    kills[0] = 6
    assert not crash_record.is_external_kill(signal.SIGKILL)
    assert crash_record.is_external_kill(signal.SIGKILL)
    assert not crash_record.is_external_kill(signal.SIGSEGV)
    assert not crash_record.is_external_kill(0)
    assert crash_record.is_external_kill(None), "nothing is known against the inputs"


def test_only_the_inputs_of_a_crashed_worker_get_a_penalty():
    scoreboard = Scoreboard()
    digest = scoreboard.quarantine.digest(b"in progress")
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


def test_a_suspect_is_cleared_by_an_answer_or_its_own_error_but_not_by_a_timeout(crash_record):
    trials = Trials(crash_record, 0)
    digest = crash_record.digest(b"suspect")

    def attempt(error=None):
        def run(on_trial):
            if not on_trial:
                raise NeedsTrial(digest)
            if error:
                raise error
            return "answer"

        return run

    crash_worker(crash_record, digest)
    for error in (DeadlinePassed("late"), ClientGone("gone")):
        with pytest.raises(type(error)):
            trials.run(attempt(error))
        assert crash_record.verdict(digest) is Verdict.SUSPECT
    with pytest.raises(UnreadableImage):
        trials.run(attempt(UnreadableImage("damaged")))
    assert crash_record.verdict(digest) is Verdict.CLEAR
    crash_worker(crash_record, digest)
    assert trials.run(attempt()) == "answer"
    assert crash_record.verdict(digest) is Verdict.CLEAR
