"""The pool of native threads works with real threads."""

import gc
import time
import weakref
from _queue import SimpleQueue
from functools import partial

import gevent
import pytest
from gevent.monkey import get_original

from app.errors import InternalError, OutOfMemory, Quarantined, QueueFull, UnreadableImage
from app.quarantine import Quarantine, Verdict
from app.serving import watchdog as watchdog_module
from app.serving.byte_budget import ByteBudget
from app.serving.handoff import Handoff
from app.serving.thread_pool import NativePool, NeedsTrial, Task
from app.serving.watchdog import Watchdog
from tests.helpers import wait_until

native_sleep = get_original("time", "sleep")


@pytest.fixture
def crash_record():
    return Quarantine(1)


@pytest.fixture
def pool(crash_record):
    """Return a pool of two threads."""
    handoff = Handoff()
    pool = NativePool("testing", 2, handoff, crash_record, crash_record.active_inputs(0))
    yield pool
    pool.close()
    wait_until(lambda: not pool.tasks())
    handoff.close()


def test_work_runs_on_another_thread_and_its_result_comes_back(pool):
    main = get_original("_thread", "get_ident")()
    assert pool.run(lambda _: get_original("_thread", "get_ident")(), b"") != main


def test_the_hub_keeps_running_meanwhile(pool):
    seen = []
    busy = gevent.spawn(pool.run, lambda _: native_sleep(0.2), b"")
    while not busy.ready():
        seen.append(1)
        gevent.sleep(0.005)
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("raised", "met"),
    [
        (UnreadableImage("damaged"), UnreadableImage),
        (KeyError("odd"), KeyError),
        (MemoryError(), OutOfMemory),
        (SystemExit(), InternalError),
    ],
)
def test_an_error_of_the_work_is_raised_at_its_waiter_and_the_thread_keeps_running(
    pool, raised, met, capfd
):
    def work(_):
        raise raised

    for _ in range(3):
        with pytest.raises(met):
            pool.run(work, b"")
    assert pool.run(lambda _: 1, b"") == 1
    assert "Traceback" not in capfd.readouterr().err


def test_canceled_work_is_not_started(pool):
    held, begun = SimpleQueue(), []
    blockers = [gevent.spawn(pool.run, lambda _: held.get(), b"") for _ in range(2)]
    wait_until(lambda: len(pool.tasks()) == 2)
    late = gevent.spawn(pool.run, lambda _: begun.append(1), b"")
    gevent.sleep(0.01)
    late.kill()
    for _ in blockers:
        held.put(None)
    gevent.joinall(blockers)
    assert pool.run(lambda _: 2, b"") == 2
    assert not begun


def test_an_input_is_active_while_it_is_processed(pool, crash_record):
    held = SimpleQueue()
    working = gevent.spawn(pool.run, lambda _: held.get(), b"data")
    wait_until(pool.tasks)
    (task,) = pool.tasks()
    assert task.digests == (crash_record.digest(b"data"),)
    held.put(None)
    working.join()
    crash_record.record_crash(0, is_external=False)
    assert crash_record.verdict(crash_record.digest(b"data")) is Verdict.CLEAR


def test_an_error_keeps_no_memory_of_the_work(pool):
    """The traceback would hold the decoder's frames, and so an image of hundreds of megabytes."""

    class Pixels:
        pass

    kept = []

    def work(_):
        pixels = Pixels()
        kept.append(weakref.ref(pixels))
        try:
            raise ValueError
        except ValueError as error:
            raise UnreadableImage("damaged") from error

    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(UnreadableImage):
                pool.run(work, b"data")
        wait_until(lambda: all(each() is None for each in kept), 5)
    finally:
        gc.enable()


def test_data_without_a_digest_is_an_error_and_not_a_lost_thread(pool):
    for _ in range(3):
        with pytest.raises(TypeError):
            pool.run(lambda _: 1, "text")
    assert pool.run(lambda _: 1, b"data") == 1


def test_a_suspect_is_processed_only_on_trial_and_a_blocked_input_never(pool, crash_record):
    digest = crash_record.digest(b"data")
    crash_record.active_inputs(0).hold([digest])
    crash_record.record_crash(0, is_external=False)
    with pytest.raises(NeedsTrial) as raised:
        pool.run(lambda _: 1, b"data")
    assert raised.value.digest == digest
    assert pool.run(lambda _: 1, b"data", on_trial=True) == 1
    crash_record.active_inputs(0).hold([digest])
    crash_record.set_trial(0, digest)
    crash_record.record_crash(0, is_external=False)
    with pytest.raises(Quarantined):
        pool.run(lambda _: 1, b"data", on_trial=True)


@pytest.fixture
def short_limit(monkeypatch):
    """Let a watchdog's limit be one second."""
    monkeypatch.setattr(watchdog_module, "MIN_LIMIT_S", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("short_limit")
def test_the_watchdog_names_the_stuck_task(pool, crash_record):
    held, stuck = SimpleQueue(), []
    watchdog = Watchdog(1, pool.tasks, lambda task, limit: stuck.append((task, limit)))
    watchdog.start()
    quick = gevent.spawn(lambda: [pool.run(lambda _: native_sleep(0.05), b"") for _ in range(30)])
    slow = gevent.spawn(pool.run, lambda _: held.get(), b"slow")
    began = time.monotonic()
    wait_until(lambda: stuck, 10)
    assert time.monotonic() - began < 6
    ((task, limit),) = stuck
    assert (task.name, task.digests, limit) == ("testing", (crash_record.digest(b"slow"),), 1)
    held.put(None)
    gevent.joinall([quick, slow])
    watchdog.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("short_limit")
def test_a_pause_of_the_whole_process_is_not_a_stuck_task(crash_record):
    looks, stuck = [], []

    def look():
        looks.append(1)
        if len(looks) == 2:
            native_sleep(1.5)  # as docker pause does it
        return [Task("testing", 0.0)] if len(looks) < 6 else []

    watchdog = Watchdog(1, look, lambda task, limit: stuck.append(task))
    watchdog.start()
    wait_until(lambda: len(looks) > 8, 10)
    watchdog.stop()
    assert not stuck


def test_a_budget_is_never_exceeded_and_a_small_one_passes_a_large_one():
    budget = ByteBudget(100, "bodies")
    order = []

    def hold(size, name):
        with budget.hold(size, 5):
            order.append(name)
            assert budget.held <= 100
            gevent.sleep(0.02)

    with budget.hold(60, 5):
        waiting = [gevent.spawn(hold, 90, "large"), gevent.spawn(hold, 30, "small")]
        gevent.sleep(0.01)
        assert order == ["small"]
    gevent.joinall(waiting, raise_error=True)
    assert order == ["small", "large"]
    assert budget.held == 0


def test_a_task_that_waits_too_long_for_the_budget_fails_with_the_limit():
    budget = ByteBudget(100, "request bodies")
    with budget.hold(80, 1):
        with pytest.raises(
            QueueFull, match="80 bytes of request bodies are held; the limit is 100"
        ):
            gevent.spawn(partial(enter, budget, 50, 0.02)).get()
        assert budget.held == 80
    with budget.hold(1000, 1):
        assert budget.held == 100, "more than all of it is all of it"


def enter(budget, size, timeout_s):
    with budget.hold(size, timeout_s):
        pass
