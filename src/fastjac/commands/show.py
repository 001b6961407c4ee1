"""``fastjac show [MODEL]``: a network live in the browser."""

from __future__ import annotations

import argparse
import importlib.util
import re
import threading
import webbrowser
from importlib import resources
from pathlib import Path

import fastjac
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_network
from fastjac.commands.progress import told_if_slow

NEEDS = ("starlette", "uvicorn", "websockets")
PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, nargs="?", help="the network's file (default: digits, shipped)"
    )
    parser.add_argument("--shape", metavar="8x8", help="the inputs are a picture of so many rows x columns")
    parser.add_argument("--names", metavar="A,B,...", help="names of the inputs, separated by commas")
    parser.add_argument(
        "--range",
        metavar="LOW:HIGH,...",
        help="between which numbers all inputs move, or each (default: 0:1 with --shape, else -3:3)",
    )
    parser.add_argument(
        "--port", metavar="P", type=int, default=PORT, help=f"0 takes any free one (default: {PORT})"
    )
    parser.add_argument(
        "--host", metavar="H", default="127.0.0.1", help="other machines may connect to this address of yours"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if not all(importlib.util.find_spec(name) for name in NEEDS):
        raise CommandError(f"show needs {', '.join(NEEDS)}: pip install 'fastjac[show]'")
    from fastjac.show.answers import Answers
    from fastjac.show.server import listen, serve

    if args.model is None:
        with resources.as_file(resources.files("fastjac") / "data" / "digits.npz") as path:
            net = read_network(path)
    else:
        net = read_network(args.model)
    text = "8x8" if args.model is None and args.shape is None else args.shape
    if args.names is not None:
        names = [name.strip() for name in args.names.split(",")]
        if len(names) != net.n_inputs:
            raise CommandError(f"--names has {len(names)} names, but the network takes {net.n_inputs} inputs")
        net = net.replace(input_names=names)
    try:
        answers = Answers(net, picture(text), intervals(args.range), fit=args.model is None)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not 0 <= args.port < 1 << 16:
        raise CommandError(f"--port is {args.port}, expected 0 to 65535")
    try:
        listener = listen(args.host, args.port)
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(f"cannot listen at {args.host}, port {args.port}: {reason}") from None
    with listener:
        with told_if_slow("compiling for this processor, once"):
            answers.warm()
        name, port = listener.getsockname()[:2]
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
        try:
            print(f"fastjac {fastjac.__version__} shows {net} at {url} (Ctrl-C ends it)", flush=True)
            if not args.no_browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            serve(answers, listener, args.host)
        except KeyboardInterrupt:
            print()
    return 0


def picture(text: str | None) -> tuple[int, int] | None:
    """Return the numbers of ``ROWSxCOLUMNS``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if match is None:
        raise CommandError(f"--shape is {text!r}, expected rows x columns, such as 8x8")
    rows, columns = map(int, match.groups())
    return rows, columns


def intervals(text: str | None) -> list[tuple[float, float]] | tuple[float, float] | None:
    """Return the two numbers of ``LOW:HIGH``, or of each where there are several."""
    if text is None:
        return None
    try:
        found = [(float(low), float(high)) for low, high in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise CommandError(f"--range is {text!r}, expected two numbers, such as 0:16, or two each") from None
    return found if len(found) > 1 else found[0]
