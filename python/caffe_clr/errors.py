"""Errors that end a command with one message instead of a traceback."""


class ClrError(Exception):
    """A run that failed: what was wrong, where, and what to do about it."""

    exit_status = 1


class Interrupted(BaseException):
    """Ctrl-C or a request to end; not an Exception, so that nothing takes it for a failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


class UsageError(ClrError):
    """An option or an argument that cannot be used."""

    exit_status = 2
