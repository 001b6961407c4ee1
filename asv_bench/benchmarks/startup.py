"""From the start of a process to the first Jacobian, with and without compiled code in the cache."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .common import DTYPES, check, random_network

# A first call may take so much, on a core as in `docs/performance.md`, and leave so much code.
MOST_SECONDS, MOST_BYTES = 12, 300_000

FIRST_JACOBIAN = """
import numpy as np
import fastjac
w1, w2 = np.ones((8, 32), "{dtype}"), np.ones((32, 4), "{dtype}")
fastjac.Network([(w1, None), (w2, None)]).value_and_jacobian(np.ones(8, "{dtype}"))
"""


class Startup:
    def setup(self):
        net, x = random_network("tiny", "float64")
        check(net.value_and_jacobian(x), net, x)

    def timeraw_import_numba(self):
        return "import numba"

    def timeraw_import(self):
        return "import fastjac"

    def timeraw_import_after_numba(self):
        return "import fastjac", "import numba"

    def timeraw_first_jacobian(self):
        return FIRST_JACOBIAN.format(dtype="float64")


class ColdStart:
    """A process that makes its first Jacobian, and leaves the code in an empty cache."""

    params = DTYPES
    param_names = ["dtype"]

    def setup_cache(self):
        return {dtype: self.first_jacobian(dtype) for dtype in DTYPES}

    setup_cache.timeout = 600

    def first_jacobian(self, dtype):
        """Return the seconds of processor time, and the bytes of code."""
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-c", FIRST_JACOBIAN.format(dtype=dtype)]
            before = os.times()
            subprocess.run(command, env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)
            after = os.times()
            seconds = after.children_user + after.children_system
            seconds -= before.children_user + before.children_system
            return seconds, sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())

    def track_processor_time(self, cold, dtype):
        return cold[dtype][0]

    track_processor_time.unit = "seconds"

    def track_code(self, cold, dtype):
        return cold[dtype][1]

    track_code.unit = "bytes"

    def track_processor_time_share_of_limit(self, cold, dtype):
        return cold[dtype][0] / MOST_SECONDS

    def track_code_share_of_limit(self, cold, dtype):
        return cold[dtype][1] / MOST_BYTES
