"""Deterministic property tests, and a numba cache of this run's own."""

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

# Numba's disk cache does not see changes in other files, so a cache from before would test old code.
_cache = tempfile.TemporaryDirectory(prefix="fastjac-tests-", ignore_cleanup_errors=True)
os.environ.setdefault("NUMBA_CACHE_DIR", _cache.name)

# Processes that tests start import `support` as tests do.
_path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(_path)

# A shell that starts this in the background has it ignore Ctrl-C, and every process it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "fastjac",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("fastjac")
