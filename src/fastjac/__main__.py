"""The command line: ``fastjac COMMAND``; without a command, a demonstration."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import fastjac
from fastjac.commands import CommandError

# Command -> its module, imported only when the command runs, a summary, and an example.
COMMANDS = {
    "jacobian": (
        "fastjac.commands.jacobian",
        "write a network's outputs and Jacobians at given inputs to a file",
        "fastjac jacobian model.npz x.npy -o jacobians.npz --top 3",
    ),
    "check": (
        "fastjac.commands.check",
        "compare a network's Jacobian with finite differences",
        "fastjac check model.onnx x.npy",
    ),
    "show": (
        "fastjac.commands.show",
        "show a network live in the browser",
        "fastjac show model.onnx --shape 28x28",
    ),
    "compare": (
        "fastjac.commands.compare",
        "time fastjac and every installed peer",
        "fastjac compare model.npz --peers jax torch --plot times.png",
    ),
    "export": (
        "fastjac.commands.export",
        "write a network as a C header and an object file",
        "fastjac export model.npz -o build",
    ),
    "warmup": (
        "fastjac.commands.warmup",
        "compile every routine into the cache",
        "NUMBA_CACHE_DIR=/opt/cache fastjac warmup --dtype float32",
    ),
    "latency": (
        "fastjac.commands.latency",
        "time single calls, up to the slowest",
        "fastjac latency model.npz --seconds 2",
    ),
    "limits": (
        "fastjac.commands.limits",
        "measure what this machine allows",
        "fastjac limits --shape 64-64-10 784-256-10",
    ),
}
EPILOG = """\
example:
  {example}

exit codes:
  0    done
  1    a Jacobian is wrong, or could not be checked
  2    a mistake in the call, or a file that cannot be read or written
  130  interrupted"""
DEMO = "fastjac.commands.demo"


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage text and leave with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class PrintCompletion(argparse.Action):
    """Prints a shell's completion of the whole command line, and leaves."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, shell: Any, option: Any = None
    ) -> None:
        """Print it; without shtab, say what is missing."""
        from fastjac.commands.completion import completion

        try:
            print(completion(parser, shell), end="")
        except CommandError as error:
            parser.error(str(error))
        parser.exit()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with ``module`` the name of the module that runs them, and ``argv`` itself."""
    parser = Parser(
        prog="fastjac",
        description="A neural network's output together with its input-output Jacobian.\n"
        "Without a command: a demonstration on a network that recognises digits.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.format(example=COMMANDS["jacobian"][-1]),
    )
    parser.add_argument("--version", action="version", version=f"fastjac {fastjac.__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print what makes this shell complete commands, options and files (needs shtab)",
    )
    parser.set_defaults(module=DEMO, argv=argv)
    subparsers = parser.add_subparsers(metavar="COMMAND")
    completing = any(arg.startswith("--print-completion") for arg in argv[:1])
    for name, (module, summary, example) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=EPILOG.format(example=example),
        )
        subparser.set_defaults(module=module)
        if completing or name in argv[:1]:
            importlib.import_module(module).add_arguments(subparser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failed check, 2 for a mistake in the call."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        code: int = importlib.import_module(args.module).run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output is gone. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CommandError, fastjac.ModelError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except KeyboardInterrupt:
        print("fastjac: interrupted", file=sys.stderr)
        return 130
    print(f"fastjac: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
