"""``fastjac warmup``: compiles every routine into the cache, for the build step of a container."""

from __future__ import annotations

import argparse
import os
import warnings

from fastjac.commands import CommandError
from fastjac.precompile import steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; ``NUMBA_CACHE_DIR`` names the folder of the cache."""
    parser.add_argument(
        "--native",
        action="store_true",
        help="compile for exactly this processor, though the package ships code for its kind; processes that "
        "set FASTJAC_NATIVE=1 use it",
    )
    parser.add_argument("--dtype", choices=("float64", "float32"), help="of the networks (default: both)")


def run(args: argparse.Namespace) -> int:
    """Print what is compiled and where it is; a cache that cannot be written is a mistake."""
    if args.native:
        os.environ["FASTJAC_NATIVE"] = "1"
    folders = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # told below
        for ready in steps(args.dtype):
            if ready.path is None:
                raise CommandError(
                    "compiled code can be written to no folder: set NUMBA_CACHE_DIR to one that can"
                )
            folders.add(ready.path.parent)
            print(
                f"{ready.name}  {'compiled' if ready.compiled else 'found'} in {ready.seconds:.2f} s",
                flush=True,
            )
    print(f"in {', '.join(str(folder) for folder in sorted(folders))}")
    return 0
