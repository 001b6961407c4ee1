"""Messages on standard error about work that takes longer than two seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

DELAY = 2.0  # seconds


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int], object]]:
    """Yield a function that takes the number of samples finished since its last call.

    It draws tqdm's bar, or prints one line if tqdm is not installed. It is silent if standard error is not
    a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda number: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _one_line(total)
        return
    with tqdm(total=total, unit=" samples", delay=DELAY, leave=False) as bar:
        yield bar.update


def _one_line(total: int) -> Callable[[int], None]:
    due = time.monotonic() + DELAY
    done = 0

    def update(number: int) -> None:
        nonlocal due, done
        done += number
        if time.monotonic() > due:
            due = float("inf")
            hint = "pip install 'fastjac[progress]' shows a bar"
            print(f"fastjac: {done} of {total} samples in {DELAY:.0f} s ({hint})", file=sys.stderr)

    return update


@contextlib.contextmanager
def told_if_slow(what: str) -> Iterator[None]:
    """Print ``what`` if the block is still running after two seconds, also into a pipe."""
    timer = threading.Timer(DELAY, print, (f"fastjac: {what}",), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
