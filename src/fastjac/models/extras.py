"""Imports of packages that only some files need."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(package: str, purpose: str) -> Any:
    """Return an optional package.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise missing(package, purpose) from error


def missing(package: str, purpose: str) -> ImportError:
    """Return the error of a package that is not installed, which is also the name of fastjac's extra."""
    return ImportError(f"{purpose} needs {package}: pip install 'fastjac[{package}]'")
