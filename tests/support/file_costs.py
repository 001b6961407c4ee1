"""What `fastjac.load` takes for a file: processor time and memory of a process that does nothing else.

Of a graph, what its calls work in is made too.

Run as a script, it reads requests from its input, each a line of JSON, and answers each with another. A fork
of this process, which has imported everything already, loads the file; the kernel tells what the fork took.
"""

import json
import mmap
import os
import subprocess
import sys
import time
import warnings
from typing import NamedTuple

# A fork that is far beyond every bound ends here, as one that died.
MOST_SECONDS = 60


# The seconds of docs/models.md are those of a processor that takes no longer for this.
COUNTED, COUNTING_SECONDS = 200_000, 0.006


class Cost(NamedTuple):
    """``outcome`` is ``"loaded"`` or the error; ``seconds`` are the processor's, less where that is slow."""

    outcome: str
    seconds: float
    peak_bytes: int
    warned: list


class Loader:
    """A process that loads files, and tells what each took."""

    def __init__(self):
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def cost(self, path, **options):
        """Return the cost of ``fastjac.load(path, **options)``."""
        self.process.stdin.write(json.dumps([str(path), options]) + "\n")
        self.process.stdin.flush()
        return Cost(*json.loads(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def _load(path, options):
    import numpy as np

    import fastjac
    from fastjac.kernels.contexts import new_context

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            net = fastjac.load(path, **options)
            outcome = "loaded"
            if net.packed.is_graph:
                for array in new_context(net.packed).arena.arrays:
                    array.view(np.uint8)[:: mmap.PAGESIZE] |= 0  # Pages are there when they are written to.
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:2000]
    return outcome, [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def _forked(function, *arguments):
    """Return a function's result, the seconds and the peak of memory of the fork that ran it."""
    import resource

    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        with open(writing, "w") as file:
            json.dump(function(*arguments), file)
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    usage = os.wait4(pid, 0)[2]
    result = json.loads(text) if text else ("died", [])
    return (
        result,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _counting():
    """Return the seconds that this processor takes now to add up numbers."""
    start, total = time.process_time(), 0
    for number in range(COUNTED):
        total += number
    return time.process_time() - start


def main():
    import tempfile
    from pathlib import Path

    import numpy as np
    import safetensors.numpy  # noqa: F401

    import fastjac
    from fastjac.kernels import activations, machine_code

    # Whatever a first network compiles or imports is no file's cost.
    for name in activations.NAMES:
        for dtype in (np.float32, np.float64):
            machine_code.address("activation", name, np.dtype(dtype))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".npz", ".safetensors"):
            for dtype in (np.float32, np.float64):
                path = Path(folder) / f"m{suffix}"
                fastjac.save(fastjac.Network([(np.eye(3, dtype=dtype), None)] * 2), path)
                fastjac.load(path)
    _, _, base = _forked(lambda: None)
    for line in sys.stdin:
        path, options = json.loads(line)
        before = _counting()
        (outcome, warned), seconds, peak = _forked(_load, path, options)
        seconds *= min(COUNTING_SECONDS / max(before, _counting()), 1)
        print(json.dumps(Cost(outcome, seconds, peak - base, warned)), flush=True)


if __name__ == "__main__":
    main()
