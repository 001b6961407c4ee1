"""Packages that only some files need: they are imported when such a file arrives."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(package: str, purpose: str) -> Any:
    """Return a module of an optional package, which is also the name of fastjac's extra.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        extra = package.partition(".")[0]
        raise ImportError(f"{purpose} needs {extra}: pip install 'fastjac[{extra}]'") from error
