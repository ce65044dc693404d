"""The queue and the model thread work together, with real threads and a forward pass that the test controls."""

import _thread
import weakref
from _queue import SimpleQueue
from contextlib import contextmanager
from functools import partial

import gevent
import numpy as np
import pytest
from gevent.event import Event

from app.engines.engine import Outputs
from app.errors import ClientGone, DeviceLost, InternalError, NotReady, OutOfMemory, QueueFull
from app.serving.batcher import Batcher
from app.serving.handoff import Handoff, start_native_thread
from app.serving.ticket import Ticket, Timing, is_never_gone, run_forward
from tests.helpers import as_forward, wait_until


def image(number: int) -> np.ndarray:
    """Return an image that carries its number."""
    return np.full((3, 2, 2), number, np.uint8)


def double(images):
    """Return each image's number doubled."""
    return np.stack(images)[:, 0, 0, :1] * 2.0


class HeldForward:
    """A forward pass that answers each image's number doubled, once it is released.

    Attributes:
        batches: the numbers of every batch that began, in order.
    """

    def __init__(self) -> None:
        """Hold every forward pass until it is released."""
        self.batches: list[list[int]] = []
        self._permits: SimpleQueue = SimpleQueue()  # native: it must block the real thread

    def __call__(self, images: list[np.ndarray]) -> np.ndarray:
        self.batches.append([int(image[0, 0, 0]) for image in images])
        permit = self._permits.get()
        if permit is not None:
            raise permit
        return double(images)

    def release(self, times: int = 1, error: BaseException | None = None) -> None:
        for _ in range(times):
            self._permits.put(error)


@contextmanager
def running(answer, *, in_lanes=(), max_batch=8, max_wait_s=0.0, max_queue=64):
    """Yield a running batcher around a function from images to logits; stop it afterwards."""
    handoff, ended = Handoff(), Event()
    batcher = Batcher(handoff, max_wait_s=max_wait_s, max_queue=max_queue)

    lanes = len(in_lanes) or 1
    batcher.open_lanes(lanes)
    ended_lanes: SimpleQueue = SimpleQueue()

    def model_thread(lane):
        try:
            in_lane = in_lanes[lane] if in_lanes else answer
            batcher.run(lane, as_forward(answer), as_forward(in_lane), max_batch)
        except (SystemExit, DeviceLost):
            pass
        finally:
            ended_lanes.put(lane)
            if ended_lanes.qsize() == lanes:
                batcher.reject_pending()
                handoff.deliver([ended])

    for lane in range(lanes):
        start_native_thread(partial(model_thread, lane))
    try:
        yield batcher
    finally:
        for held in (answer, *in_lanes):
            if isinstance(held, HeldForward):
                held.release(100)
        batcher.drain(5)
        assert ended.wait(5), "the model thread did not end"
        handoff.close()


def ask(batcher: Batcher, number: int) -> gevent.Greenlet:
    """Submit an image from its own greenlet, which returns the answer."""

    def request() -> float:
        with batcher.slot():
            return float(batcher.submit(image(number)).logits[0])

    greenlet = gevent.spawn(request)
    gevent.sleep(0)  # until it waits
    return greenlet


def test_every_request_gets_the_answer_to_its_own_image():
    with running(double) as batcher:
        requests = [ask(batcher, number) for number in range(64)]
        assert [request.get(timeout=5) for request in requests] == [n * 2.0 for n in range(64)]


def test_waiting_requests_share_one_forward_pass_in_order_of_arrival():
    forward = HeldForward()
    with running(forward, max_batch=4) as batcher:
        requests = [ask(batcher, 0)]
        wait_until(lambda: forward.batches)
        requests += [ask(batcher, number) for number in range(1, 8)]
        forward.release(3)
        assert [request.get(timeout=5) for request in requests] == [n * 2.0 for n in range(8)]
        assert forward.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_answer_reports_its_batch_size_and_the_request_that_led_it():
    forward = HeldForward()
    with running(forward, max_batch=2) as batcher:

        def request(number: int) -> Timing:
            with batcher.slot():
                return batcher.submit(image(number)).timing

        requests = [gevent.spawn(request, 0)]
        wait_until(lambda: forward.batches)
        requests += [gevent.spawn(request, 1), gevent.spawn(request, 2)]
        gevent.sleep(0)  # until they wait
        forward.release(2)
        timings = [request.get(timeout=5) for request in requests]
    assert [(timing.batch, timing.leads) for timing in timings] == [
        (1, True),
        (2, True),
        (2, False),
    ]
    assert timings[1].forward_s == timings[2].forward_s
    assert timings[1].queue_s >= timings[2].queue_s >= 0


def test_a_full_batch_does_not_wait():
    forward = HeldForward()
    forward.release()
    with running(forward, max_batch=2, max_wait_s=60) as batcher, batcher.slot():
        requests = [ask(batcher, 1), ask(batcher, 2)]
        assert [request.get(timeout=5) for request in requests] == [2.0, 4.0]
        assert forward.batches == [[1, 2]]


def test_a_single_image_does_not_wait_for_others():
    forward = HeldForward()
    forward.release()
    with running(forward, max_wait_s=60) as batcher:
        assert ask(batcher, 3).get(timeout=5) == 6.0


def test_a_batch_waits_for_an_image_that_is_being_decoded():
    forward = HeldForward()
    forward.release()
    with running(forward, max_wait_s=60) as batcher:
        with batcher.slot():  # the second request, on its way
            first = ask(batcher, 1)
            gevent.sleep(0.05)
            assert not forward.batches
            assert batcher.submit(image(2)).logits[0] == 4.0
        assert first.get(timeout=5) == 2.0
        assert forward.batches == [[1, 2]]


def test_a_batch_waits_for_a_decoder_no_longer_than_its_limit():
    forward = HeldForward()
    forward.release()
    with running(forward, max_wait_s=0.05) as batcher, batcher.slot():
        assert ask(batcher, 1).get(timeout=5) == 2.0
        assert forward.batches == [[1]]


def test_a_disconnected_client_is_not_computed_and_frees_its_place():
    forward = HeldForward()
    with running(forward, max_queue=3) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: forward.batches)

        def request():
            with batcher.slot():
                batcher.submit(image(2), is_gone=lambda: True)

        gone, stayed = gevent.spawn(request), ask(batcher, 3)
        forward.release(2)
        with pytest.raises(ClientGone):
            gone.get(timeout=5)
        assert (first.get(timeout=5), stayed.get(timeout=5)) == (2.0, 6.0)
        assert forward.batches == [[1], [3]]


def test_a_single_image_gets_the_whole_device_and_many_are_spread_over_the_lanes():
    whole, lanes = HeldForward(), [HeldForward(), HeldForward()]
    with running(whole, in_lanes=lanes) as batcher:
        whole.release()
        assert ask(batcher, 1).get(timeout=5) == 2.0
        assert whole.batches == [[1]]
        with batcher.slot(), batcher.slot(), batcher.slot():  # three more are on their way
            crowd = [ask(batcher, number) for number in range(2, 7)]
            wait_until(lambda: lanes[0].batches and lanes[1].batches)
        for lane in lanes:
            lane.release(5)
        assert [request.get(timeout=5) for request in crowd] == [n * 2.0 for n in range(2, 7)]
        done = [batch for lane in lanes for batch in lane.batches]
        assert sorted(number for batch in done for number in batch) == [2, 3, 4, 5, 6]
        assert max(len(batch) for batch in done) <= 4  # half of those inside, rounded up
        assert whole.batches == [[1]]


def test_lanes_wait_for_decoders_no_longer_than_their_limit():
    """Another lane repeatedly takes the decoded image just as the wait for it ends."""
    with running(double, in_lanes=[double] * 2, max_batch=4, max_wait_s=0.0001) as batcher:

        def request(number: int) -> float:
            with gevent.Timeout(10), batcher.slot():
                gevent.sleep(number % 3 / 10_000)  # it is decoded
                return float(batcher.submit(image(number)).logits[0])

        for _ in range(400):
            crowd = [gevent.spawn(request, number) for number in range(9)]
            assert [greenlet.get() for greenlet in crowd] == [n * 2.0 for n in range(9)]


def test_every_lane_ends_when_the_batcher_drains():
    with running(double, in_lanes=[double] * 4) as batcher:
        requests = [ask(batcher, number) for number in range(32)]
        assert [request.get(timeout=5) for request in requests] == [n * 2.0 for n in range(32)]


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_fits(caplog):
    sizes = []

    def forward(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise OutOfMemory("the GPU is out of memory: 3 is too many")
        return double(images)

    with running(forward, max_batch=8, max_wait_s=60) as batcher, batcher.slot():
        requests = [ask(batcher, number) for number in range(8)]
        assert [request.get(timeout=5) for request in requests] == [n * 2.0 for n in range(8)]
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert "the GPU is out of memory: 3 is too many" in caplog.text


def test_a_single_image_that_does_not_fit_fails_and_the_next_is_tried():
    forward = HeldForward()
    with running(forward) as batcher:
        forward.release(error=OutOfMemory("the GPU is out of memory"))
        with pytest.raises(OutOfMemory):
            ask(batcher, 1).get(timeout=5)
        forward.release()
        assert ask(batcher, 2).get(timeout=5) == 4.0


def test_a_lost_device_ends_the_loop_before_any_answer():
    forward = HeldForward()
    forward.release(error=DeviceLost("an illegal memory access was encountered"))
    with running(forward) as batcher, pytest.raises(NotReady, match="stopped"):  # by turn_away
        ask(batcher, 1).get(timeout=5)


def test_a_request_over_the_limit_is_refused_and_a_free_place_is_reused():
    forward = HeldForward()
    with running(forward, max_queue=2) as batcher:
        inside = [ask(batcher, 1), ask(batcher, 2)]
        with (
            pytest.raises(QueueFull, match="2 requests are waiting; the limit is 2"),
            batcher.slot(),
        ):
            pass
        forward.release(3)
        gevent.joinall(inside, timeout=5)
        assert ask(batcher, 3).get(timeout=5) == 6.0


def test_a_canceled_request_is_not_computed():
    forward = HeldForward()
    with running(forward) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: forward.batches)
        left, stayed = ask(batcher, 2), ask(batcher, 3)
        left.kill()
        forward.release(2)
        assert (first.get(timeout=5), stayed.get(timeout=5)) == (2.0, 6.0)
        assert forward.batches == [[1], [3]]


def test_a_batch_of_canceled_requests_costs_no_forward_pass():
    forward = HeldForward()
    with running(forward) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: forward.batches)
        ask(batcher, 2).kill()
        forward.release(2)
        first.get(timeout=5)
        assert ask(batcher, 3).get(timeout=5) == 6.0
        assert forward.batches == [[1], [3]]


def test_a_batch_that_ran_out_of_memory_is_freed_before_its_halves_are_tried():
    """Before, the traceback held the tensors of the failed attempt."""
    attempts, still_there = [], []

    def forward(images):
        still_there.append([tensor() is not None for tensor in attempts])
        tensor = np.zeros(1 << 20)
        attempts.append(weakref.ref(tensor))
        if len(images) > 1:
            raise OutOfMemory("the GPU is out of memory")
        return double(images)

    held = HeldForward()
    with running(
        lambda images: held(images) if images[0][0, 0, 0] == 1 else forward(images)
    ) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: held.batches)
        others = [ask(batcher, number) for number in (2, 3)]
        held.release()
        assert [first.get(timeout=5), *(each.get(timeout=5) for each in others)] == [2.0, 4.0, 6.0]
    assert still_there == [[], [False], [False, False]]


def test_a_failed_forward_pass_fails_only_its_own_batch(caplog):
    forward = HeldForward()
    with running(forward) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: forward.batches)
        second = ask(batcher, 2)
        forward.release(error=ValueError("cuDNN says no"))
        with pytest.raises(InternalError, match="the log has the reason") as error:
            first.get(timeout=5)
        assert "cuDNN" not in str(error.value)
        assert "cuDNN says no" in caplog.text
        forward.release(2)
        assert second.get(timeout=5) == 4.0
        assert ask(batcher, 3).get(timeout=5) == 6.0


def test_a_forward_pass_with_too_few_rows_fails_the_whole_batch():
    with running(lambda images: double(images)[:-1]) as batcher, pytest.raises(InternalError):
        ask(batcher, 1).get(timeout=5)


def test_draining_answers_accepted_requests_and_refuses_new_ones():
    forward = HeldForward()
    with running(forward) as batcher:
        inside = [ask(batcher, number) for number in range(3)]
        drained = gevent.spawn(batcher.drain, 5)
        gevent.sleep(0)
        with pytest.raises(NotReady, match="shutting down"), batcher.slot():
            pass
        forward.release(3)
        assert [request.get(timeout=5) for request in inside] == [0.0, 2.0, 4.0]
        assert drained.get(timeout=5) is True


def test_draining_reports_a_timeout():
    forward = HeldForward()
    with running(forward) as batcher:
        request = ask(batcher, 1)
        assert batcher.drain(0.05) is False
        forward.release()
        assert request.get(timeout=5) == 2.0


def test_no_request_is_left_waiting_when_the_model_thread_dies():
    forward = HeldForward()
    with running(forward) as batcher:
        first = ask(batcher, 1)
        wait_until(lambda: forward.batches)
        queued = [ask(batcher, 2), ask(batcher, 3)]
        forward.release(error=SystemExit())
        for request in [first, *queued]:
            with pytest.raises(NotReady, match="stopped"):
                request.get(timeout=5)


def test_the_hub_keeps_running_while_the_model_thread_computes():
    forward = HeldForward()
    with running(forward) as batcher:
        request = ask(batcher, 1)
        wait_until(lambda: forward.batches)
        ticks = [gevent.sleep(0.001) for _ in range(20)]
        assert len(ticks) == 20
        assert not request.ready()
        forward.release()
        request.get(timeout=5)


def test_features_go_only_to_requests_that_ask_for_them():
    calls = []

    def forward(images, with_features):
        calls.append(with_features)
        features = np.stack(images)[:, :, :1, :1].astype(np.float32)
        return Outputs(double(images), features if with_features else None)

    def answer(tickets):
        run_forward(tickets, forward)
        return [ticket.outcome.features for ticket in tickets]

    tickets = [Ticket(image(number), is_never_gone, number == 2) for number in (1, 2)]
    first, second = answer(tickets)
    assert first is None
    assert second.tolist() == [[[2]], [[2]], [[2]]]
    assert answer(tickets[:1]) == [None]
    assert calls == [True, False]


def test_a_job_runs_on_the_model_thread_between_the_batches():
    forward, threads = HeldForward(), []

    def job():
        threads.append(_thread.get_ident())
        return np.float32([7])

    with running(forward) as batcher, batcher.slot():
        first = ask(batcher, 0)
        wait_until(lambda: forward.batches)
        requests = [
            ask(batcher, 1),
            gevent.spawn(batcher.run_job, job),
            gevent.spawn(batcher.run_job, job),
        ]
        gevent.sleep(0)  # until they wait
        requests.append(ask(batcher, 2))
        forward.release(2)
        assert [each.get(timeout=5) for each in (first, *requests)] == [0, 2, [7], [7], 4]
        assert forward.batches == [[0], [1, 2]]
    assert len(set(threads)) == 1
    assert _thread.get_ident() not in threads


def test_a_failed_job_fails_no_other_request(caplog):
    def fail():
        raise ValueError("no gradient today")

    with running(double) as batcher, batcher.slot():
        failing = gevent.spawn(batcher.run_job, fail)
        assert ask(batcher, 1).get(timeout=5) == 2.0
        with pytest.raises(InternalError, match="the log has the reason"):
            failing.get(timeout=5)
        with pytest.raises(OutOfMemory):
            batcher.run_job(raise_out_of_memory)
    assert "no gradient today" in caplog.text


def raise_out_of_memory():
    raise OutOfMemory("the GPU is out of memory")


def test_a_request_past_its_forward_pass_is_not_waited_for_and_keeps_its_place():
    forward = HeldForward()
    forward.release(3)
    with running(forward, max_wait_s=60, max_queue=2) as batcher:
        with batcher.slot(), batcher.without_forward():
            assert ask(batcher, 1).get(timeout=5) == 2.0  # at once, though one is inside
            with batcher.slot(), pytest.raises(QueueFull):
                ask(batcher, 2).get(timeout=5)
            drained = gevent.spawn(batcher.drain, 5)
            gevent.sleep(0)
            assert not drained.ready()
        assert drained.get(timeout=5) is True
