"""Runs numbered cases in forked processes, so that a crash is found and its case can be run again alone."""

import argparse
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections import Counter

MOST_SECONDS = 300  # A case that takes longer hangs.
_NUMBER = struct.Struct("q")
_place = mmap.mmap(-1, 4096)  # Shared with forks: it tells the case even after a crash.


def note(text):
    """Say what this case is; it is printed if the case goes wrong."""
    data = str(text).encode()[: len(_place) - _NUMBER.size]
    _place[_NUMBER.size :] = data.ljust(len(_place) - _NUMBER.size, b"\0")


def _noted():
    return str(_place[_NUMBER.size :].rstrip(b"\0"), "utf-8", "replace")


def options(about, **defaults):
    """Return what the command line asks for; ``defaults`` are the full scale."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--count", type=int, default=defaults.get("count"), help="cases")
    parser.add_argument("--seconds", type=float, default=defaults.get("seconds"), help="the most to take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    return parser.parse_args()


def attack(check, count):
    """Run ``check(seed, number, found)`` for each case, print a summary, and exit with 1 at a violation.

    Parameters
    ----------
    check : callable
        It raises what it found to be wrong, and counts in ``found``, a `Counter`, what it saw.
    count : int
        Cases at full scale.
    """
    asked = options(sys.modules["__main__"].__doc__, count=count)
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    begun, found, number = time.monotonic(), Counter(), asked.first
    end = asked.first + asked.count
    while number < end and (asked.seconds is None or time.monotonic() - begun < asked.seconds):
        # Few in each process: arrays between guard pages are never freed.
        stop = min(number + 25, end)
        last, seen, wrong = _forked(check, asked.seed, number, stop)
        found.update(seen)
        if wrong:
            print(wrong, file=sys.stderr)
            print(f"case {last}: {_noted()}")
            print(f"again: python -m attacks.{name} --seed {asked.seed} --first {last} --count 1")
            print(f"{name}: VIOLATION in case {last}")
            sys.exit(1)
        number = stop
    seen = ", ".join(f"{times} {what}" for what, times in sorted(found.items()))
    print(f"{name}: {number - asked.first} cases in {time.monotonic() - begun:.0f} s, no violation; {seen}")


def _forked(check, seed, start, stop):
    """Return the last case that a fork began, what it counted, and what went wrong or None."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        wrong, found = None, Counter()
        try:
            for number in range(start, stop):
                _place[: _NUMBER.size] = _NUMBER.pack(number)
                note("")
                signal.alarm(MOST_SECONDS)
                check(seed, number, found)
        except BaseException:
            wrong = traceback.format_exc()
        with open(writing, "w") as file:
            json.dump([found, wrong], file)
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found, wrong = json.loads(text) if text else ({}, f"the process ended with status {status}")
    return _NUMBER.unpack_from(_place)[0], found, wrong
