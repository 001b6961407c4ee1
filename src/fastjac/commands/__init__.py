"""What the command line does: one module a command, each with ``add_arguments(parser)`` and ``run(args)``."""


class CommandError(Exception):
    """A mistake in what the user gave, told in one line; the command line ends with exit code 2."""
