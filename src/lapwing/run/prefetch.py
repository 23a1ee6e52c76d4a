"""Batches assembled ahead of the step that needs them, by one thread behind a bounded queue."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lapwing.batch import Batch, Obs


class Prefetch(Iterator[Batch]):
    """Draws from `batches` in a thread, at most `depth` ahead. `waited` is the time spent on an empty queue, s.

    An error in the thread is raised by the `next` that would have got the batch. `pin` copies each batch to
    page-locked memory, so that a GPU can fetch it while computing. Close it after use.
    """

    def __init__(self, batches: Iterator[Batch], depth: int = 3, pin: bool = False) -> None:
        self.waited = 0.0
        self._batches = batches
        self._pin = pin
        self._queue: queue.Queue[Batch | Exception] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Batch:
        if self._closed.is_set():
            raise StopIteration
        started = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - started
        if isinstance(item, Exception):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """Stop the thread and drop what it has prepared."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def _work(self) -> None:
        try:
            while not self._closed.is_set():
                batch = next(self._batches)
                self._queue.put(_pinned(batch) if self._pin else batch)
        except Exception as error:  # whatever went wrong belongs to the thread that asked for the batch
            self._queue.put(error)


class Direct(Iterator[Batch]):
    """Draws a batch when it is asked for: for sources that change between the steps."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.waited = 0.0
        self._batches = batches

    def __next__(self) -> Batch:
        started = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - started
        return batch

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *exc: Any) -> None:
        """Nothing runs behind it."""


def _pinned(batch: Batch) -> Batch:
    def pin(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.pin_memory()
        if isinstance(value, Obs):
            return Obs({name: x.pin_memory() for name, x in value.images.items()}, value.state.pin_memory())
        return value

    return Batch(**{name: pin(value) for name, value in vars(batch).items()})
