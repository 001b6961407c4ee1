"""The profile of the property tests, and a numba cache of this run's own."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from support.examples import USUAL

# Numba's disk cache does not see changes in other files, so a cache from before would test old code.
_cache = tempfile.TemporaryDirectory(prefix="fastjac-tests-", ignore_cleanup_errors=True)
os.environ.setdefault("NUMBA_CACHE_DIR", _cache.name)

# The source is tested, not machine code that was made for a wheel; that is, where this is empty.
os.environ.setdefault("FASTJAC_NATIVE", "1")

# Processes that tests start import `support` as tests do.
_path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(_path)

# A shell that starts this in the background has it ignore Ctrl-C, and every process it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a failure in the random profile prints makes it happen again.
always = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
settings.register_profile("deterministic", max_examples=USUAL, derandomize=True, database=None, **always)
settings.register_profile("random", max_examples=10 * USUAL, print_blob=True, **always)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))


def pytest_configure(config):
    """Compile ahead where tests run in several processes: each would compile the same."""
    if getattr(config.option, "numprocesses", None):
        command = [sys.executable, "-m", "fastjac", "warmup", "--dtype"]
        for process in [subprocess.Popen([*command, dtype]) for dtype in ("float64", "float32")]:
            assert process.wait() == 0
