"""``fastjac export MODEL -o DIR``: writes a network as a C header and an object file."""

from __future__ import annotations

import argparse
from pathlib import Path

import fastjac
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_network
from fastjac.embedding.export import export, identifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the network's file")
    parser.add_argument(
        "-o", metavar="DIR", dest="folder", type=Path, required=True, help="the folder for NAME.h and NAME.o"
    )


def run(args: argparse.Namespace) -> int:
    """Write both files under the name of the model's file."""
    net = read_network(args.model)
    try:
        name = identifier(args.model.stem)
        paths = export(net.packed, args.folder, name, str(net), fastjac.__version__)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename}: {error.strerror or error}") from None
    for path in paths:
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0
