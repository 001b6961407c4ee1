"""``fastjac warmup``: compiles every routine into the cache, for the build step of a container."""

from __future__ import annotations

import argparse
import warnings

import fastjac
from fastjac.commands import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no argument: ``NUMBA_CACHE_DIR`` names the folder of the cache."""


def run(args: argparse.Namespace) -> int:
    """Print what was compiled and where it is; a cache that cannot be written is a mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # told below
        ready = fastjac.warmup()
    folders = {routine.path.parent for routine in ready if routine.path}
    if any(routine.path is None for routine in ready):
        raise CommandError("compiled code can be written to no folder: set NUMBA_CACHE_DIR to one that can")
    for routine in ready:
        print(f"{routine.name:30} {'compiled' if routine.compiled else 'found'} in {routine.seconds:.2f} s")
    print(f"{len(ready)} routines in {', '.join(str(folder) for folder in sorted(folders))}")
    return 0
