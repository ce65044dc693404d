"""A stand-in for CUDA: the GPU engine runs on the CPU, with graphs that replay recorded functions.

It shows the order of calls and the memory that is kept and freed; not that CUDA works as documented.
"""

import contextlib
import weakref

import torch

from app.engines import cuda


class Graph:
    """A recorded function."""

    def __init__(self, run):
        """Keep the recorded function."""
        self.run = run

    def replay(self):
        self.run()

    def reset(self):
        self.run = None


class Nothing:
    """A stream or an event: everything is done when it returns."""

    def __init__(self, *_, **__):
        """Accept all arguments of CUDA's class."""

    def synchronize(self):
        pass

    def record(self):
        pass


class FakeCuda:
    """Calls of the engine to CUDA, and the free memory.

    Attributes:
        room: the largest batch that fits.
        recorded: sizes in the order of their captures.
        benchmark: ``cudnn.benchmark`` at each capture.
        fp32: how fp32 convolutions were computed at each capture.
        emptied: how often cached memory was given back.
        streams: those to warm up on, to capture on, and to answer on.
        stream: the current one.
    """

    def __init__(self, monkeypatch, room=1024):
        """Replace CUDA."""
        self.room = room
        self.recorded, self.benchmark, self.fp32, self.emptied = [], [], [], 0
        monkeypatch.setattr(cuda, "record", self.record)
        monkeypatch.setattr(cuda, "pinned", lambda shape, dtype: torch.zeros(shape, dtype=dtype))
        self.streams, self.stream = (Nothing(), Nothing(), Nothing()), None
        monkeypatch.setattr(cuda, "make_streams", lambda device: self.streams)
        monkeypatch.setattr(cuda, "_open", weakref.WeakSet())
        monkeypatch.setattr(cuda, "_timed", set())
        monkeypatch.setattr(cuda, "WARM_UP_RUNS", 1)
        for name, value in {
            "Event": Nothing,
            "stream": self.use,
            "set_device": lambda device: None,
            "synchronize": lambda: None,
            "graph_pool_handle": lambda: None,
            "empty_cache": self.empty,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def empty(self):
        self.emptied += 1

    @contextlib.contextmanager
    def use(self, stream):
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    def record(self, run, pool, stream):
        (size,) = run.args
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.recorded.append(size)
        self.benchmark.append(torch.backends.cudnn.benchmark)
        self.fp32.append(torch.backends.cudnn.conv.fp32_precision)
        with self.use(stream):
            run()
        return Graph(run)
