"""Spreads the chunks of one batch over threads: the calling one, and helpers that all callers share.

The caller works through the chunks itself; helpers that are free join it. It never waits for a helper
that has not begun, so callers cannot block each other, however many there are and wherever they run.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable, Iterator
from operator import index
from queue import SimpleQueue
from typing import Literal

Chunk = tuple[int, int]
Threads = int | Literal["all"]


def thread_count(threads: Threads) -> int:
    """Return how many threads ``threads`` asks for: a positive integer, or ``"all"`` for every core."""
    if isinstance(threads, str):
        if threads != "all":
            raise ValueError(f"threads is {threads!r}, expected a positive integer or 'all'")
        return cores()
    try:
        number = index(threads)
    except TypeError:
        raise TypeError(f"threads must be an integer or 'all', got {type(threads).__name__}") from None
    if number < 1:
        raise ValueError(f"threads is {number}, expected a positive integer or 'all'")
    return number


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(work: Callable[[int, int], object], chunks: Iterator[Chunk], helpers: int) -> None:
    """Call ``work(start, stop)`` for each of ``chunks``, with up to ``helpers`` threads beside this one.

    If a call raises, in whichever thread, the work stops and the exception is raised here; so is
    KeyboardInterrupt between two chunks. No thread is at work on them any more when this returns or raises.
    """
    if helpers < 1:
        for chunk in chunks:
            work(*chunk)
        return
    job = _Job(work, chunks)
    try:
        _helpers.ask(job.help, helpers)
        job.work()
    finally:
        job.finish()
    if job.error is not None:
        raise job.error


class _Job:
    """Chunks that threads take one after the other until there are none, or one of them failed."""

    def __init__(self, work: Callable[[int, int], object], chunks: Iterator[Chunk]) -> None:
        self.error: BaseException | None = None
        self._work: Callable[[int, int], object] | None = work
        self._chunks = chunks
        self._lock = threading.Lock()
        self._closed = False
        self._helpers = 0
        self._left = threading.Lock()  # Free once no helper is at work and none can begin.
        self._left.acquire()

    def work(self) -> None:
        """Take chunks until there are none."""
        while True:
            with self._lock:
                chunk = None if self._closed else next(self._chunks, None)
                work = self._work
            if chunk is None or work is None:
                return
            work(*chunk)

    def help(self) -> None:
        """Work as a helper: the caller raises what goes wrong."""
        with self._lock:
            if self._closed:
                return
            self._helpers += 1
        try:
            self.work()
        except BaseException as error:
            self.error, self._closed = error, True
        finally:
            with self._lock:
                self._helpers -= 1
                if self._closed and not self._helpers:
                    self._left.release()

    def finish(self) -> None:
        """Let no thread take another chunk, and return when all have finished theirs.

        A second interruption does not cut this short: the arrays are still being written.
        """
        interruption = None
        while True:
            try:
                with self._lock:
                    # A helper that comes late finds nothing, and holds on to no arrays.
                    self._closed, self._work = True, None
                    waits = self._helpers > 0
                if waits:
                    self._left.acquire()
                break
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption


class _Helpers:
    """The threads that all callers share.

    They take work from a queue whose ``put`` may interrupt itself: a handler of a signal, or Ctrl-C, comes
    anywhere, and an executor's locks are waited for or stay locked then.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._growing = threading.Lock()
        self._size = 0

    def ask(self, function: Callable[[], None], helpers: int) -> None:
        """Let ``helpers`` threads call a function, when they are free.

        There is a thread for each other core, or as many as one caller wants.
        """
        size = max(helpers, cores() - 1)
        if self._size < size and self._growing.acquire(blocking=False):
            try:
                while self._size < size:
                    self._size += 1
                    _thread.start_new_thread(self._serve, ())
            finally:
                self._growing.release()
        for _ in range(helpers):
            self._asked.put(function)

    def _serve(self) -> None:
        threading.current_thread().name = "fastjac"
        while True:
            self._asked.get()()


_helpers = _Helpers()


def _after_fork() -> None:
    """Start anew in a child: it has none of its parent's threads, and its locks as they happened to be."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
