"""Runs a command again in a process whose libraries compute on one thread and draw on no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# The libraries read these when they are loaded, hence a new process.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


def in_force() -> bool:
    """Return whether this process was started with `ENVIRONMENT`."""
    return all(os.environ.get(name) == value for name, value in ENVIRONMENT.items())


def run_again(argv: Sequence[str]) -> int:
    """Run ``fastjac *argv`` with `ENVIRONMENT` and return its exit code."""
    return run([sys.executable, "-m", "fastjac", *argv])


def run(command: Sequence[str]) -> int:
    """Run ``command`` with `ENVIRONMENT` and return its exit code.

    Of its standard error the lines that begin with ``fastjac`` are passed on at once. The rest is what
    libraries write there: it is shown only if the command crashes.
    """
    noise = []
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("fastjac"):
                    print(line, end="", file=sys.stderr, flush=True)
                else:
                    noise.append(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode not in (0, 2):
        print("".join(noise), end="", file=sys.stderr)
    return process.returncode
