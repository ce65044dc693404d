"""The shared record of inputs that end workers: who is charged, who is cleared, who is convicted."""

import os
import signal
import subprocess
import sys

import pytest

from app import quarantine as module
from app.endings import ending_signal
from app.errors import DeadlinePassed, UnreadableImage
from app.native_pool import NeedsTrial
from app.quarantine import CHARGED, IN_HAND, Quarantine, Verdict
from app.roster import Roster, State
from app.trials import Trials


@pytest.fixture
def ward():
    """Return a record with places for three workers."""
    return Quarantine(3)


def die(ward, *digests, slot=0, outside=False):
    """Have a worker die with inputs in hand; return who is convicted."""
    ward.hands(slot).hold(digests)
    return ward.charge(slot, outside=outside)


def test_an_input_that_crashes_two_workers_is_convicted(ward):
    poison, other = ward.digest(b"poison"), ward.digest(b"other")
    assert die(ward, poison, other) == []
    assert (ward.verdict(poison), ward.verdict(other)) == (Verdict.SUSPECT, Verdict.SUSPECT)
    assert die(ward, poison, slot=1) == [poison]
    assert (ward.verdict(poison), ward.verdict(other)) == (Verdict.CONVICTED, Verdict.SUSPECT)
    assert ward.verdict(ward.digest(b"anything else")) is Verdict.CLEAR


def test_a_suspect_that_comes_through_starts_anew(ward):
    innocent = ward.digest(b"innocent")
    die(ward, innocent)
    ward.acquit(innocent)
    assert ward.verdict(innocent) is Verdict.CLEAR
    assert die(ward, innocent) == []
    assert die(ward, innocent) == [innocent]


def test_no_acquittal_undoes_a_conviction(ward):
    poison = ward.digest(b"poison")
    die(ward, poison)
    die(ward, poison)
    ward.acquit(poison)
    assert ward.verdict(poison) is Verdict.CONVICTED


def test_what_was_released_is_not_charged(ward):
    digest = ward.digest(b"done")
    hands = ward.hands(0)
    hands.release(hands.hold([digest]))
    assert ward.charge(0, outside=False) == []
    assert ward.verdict(digest) is Verdict.CLEAR


def test_a_kill_from_outside_counts_half_unless_the_input_was_alone(ward):
    one, other = ward.digest(b"1"), ward.digest(b"2")
    for _ in range(3):
        assert die(ward, one, other, outside=True) == []
    assert set(die(ward, one, other, outside=True)) == {one, other}
    alone = ward.digest(b"3")
    assert die(ward, alone, outside=True) == []
    assert die(ward, alone, outside=True) == [alone]


def test_a_worker_that_ends_itself_charges_only_the_culprit(ward):
    culprit, neighbor = ward.digest(b"1"), ward.digest(b"2")
    hands = ward.hands(2)
    hands.hold([neighbor, culprit])
    hands.keep_only([culprit])
    ward.charge(2, outside=False)
    assert (ward.verdict(culprit), ward.verdict(neighbor)) == (Verdict.SUSPECT, Verdict.CLEAR)


def test_more_inputs_than_there_are_places_do_no_harm(ward):
    hands = ward.hands(0)
    digests = [ward.digest(b"%d" % number) for number in range(IN_HAND + 10)]
    places = hands.hold(digests)
    assert len(places) == IN_HAND
    hands.release(places)
    assert len(hands.hold(digests)) == IN_HAND


def test_the_oldest_charge_is_forgotten_first(ward):
    first = ward.digest(b"first")
    die(ward, first)
    for number in range(CHARGED):
        die(ward, ward.digest(b"%d" % number))
    assert ward.verdict(first) is Verdict.CLEAR


def test_a_request_is_found_inside_another_worker_until_that_is_cleared(ward):
    request = bytes(range(16))
    ward.visitors(1).hold([request])
    assert ward.is_inside_another(request, 0, [0, 1])
    assert not ward.is_inside_another(request, 1, [0, 1])
    ward.clear(1)
    assert not ward.is_inside_another(request, 0, [0, 1])


def test_a_sigkill_is_from_outside_unless_the_kernel_ran_out_of_memory(ward, monkeypatch):
    kills = [5]
    monkeypatch.setattr(module, "count_oom_kills", lambda: kills[0])
    ward = Quarantine(1)
    assert ward.was_outside(signal.SIGKILL)
    kills[0] = 6
    assert not ward.was_outside(signal.SIGKILL)
    assert ward.was_outside(signal.SIGKILL)
    assert not ward.was_outside(signal.SIGSEGV)
    assert not ward.was_outside(0)


def test_only_a_worker_that_has_died_is_charged():
    roster = Roster()
    digest = roster.quarantine.digest(b"in hand")
    for state, verdict in ((State.DRAINING, Verdict.CLEAR), (State.READY, Verdict.SUSPECT)):
        slot = roster.claim()
        roster.enter(slot)
        roster.mark(state)
        roster.quarantine.hands(slot).hold([digest])
        roster.release(slot)
        assert roster.quarantine.verdict(digest) is verdict


@pytest.mark.parametrize(
    ("program", "number"),
    [("import os; os.abort()", signal.SIGABRT), ("raise SystemExit(3)", 0)],
)
def test_how_a_child_ended_is_known_before_it_is_reaped(program, number):
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there
    assert ending_signal(child.pid) == number
    child.wait()
    assert ending_signal(child.pid) == 0


def test_a_suspect_is_cleared_by_an_answer_and_by_its_own_fault_but_not_by_time(ward):
    trials = Trials(ward)
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
    with pytest.raises(DeadlinePassed):
        trials.run(attempt(DeadlinePassed("late")))
    assert ward.verdict(digest) is Verdict.SUSPECT
    with pytest.raises(UnreadableImage):
        trials.run(attempt(UnreadableImage("damaged")))
    assert ward.verdict(digest) is Verdict.CLEAR
    die(ward, digest)
    assert trials.run(attempt()) == "answer"
    assert ward.verdict(digest) is Verdict.CLEAR
