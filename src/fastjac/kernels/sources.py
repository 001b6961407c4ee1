"""The source of the kernels, by which compiled code is known to be theirs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import marshal
import pkgutil
from typing import Any


@functools.cache
def digest() -> str:
    """Return a digest of the kernels' source."""
    package = importlib.import_module(__package__)
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{__package__}.")]
    parts = [(name, content(name)) for name in sorted([*names, "fastjac.layers"])]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def content(name: str) -> str | bytes:
    """Return a module's source or, where it is installed without, its bytecode."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    loader: Any = spec.loader
    return loader.get_source(name) or marshal.dumps(loader.get_code(name))
