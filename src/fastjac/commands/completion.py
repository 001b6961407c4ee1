"""``fastjac --print-completion SHELL``: a script by which a shell completes the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from fastjac.commands import CommandError


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script, in which every argument that is a path completes to files."""
    try:
        import shtab
    except ImportError:
        raise CommandError("--print-completion needs shtab: pip install 'fastjac[completion]'") from None
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
