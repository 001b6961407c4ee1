"""The command line's commands, one module each, with ``add_arguments(parser)`` and ``run(args)``."""


class CommandError(Exception):
    """The user's mistake, described in one line; the command line prints it and exits with code 2."""
