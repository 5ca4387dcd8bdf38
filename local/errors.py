"""The one exception a user is meant to see."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CURES = {
    errno.ECONNABORTED: "run the same command again, which continues, or name another server in corpus.mirror",
    errno.ENOSPC: "make room there and run the same command again, which continues",
    errno.EDQUOT: "make room there and run the same command again, which continues",
    errno.EACCES: "get access to it, or run where you have it",
    errno.EPERM: "get access to it, or run where you have it",
    errno.ECHILD: "run the same command again, which continues; if for want of memory, with smaller batches",
    errno.EROFS: "make it writable, or run elsewhere",
}


class InputError(Exception):
    """A user's mistake: what was found where, what was expected, what to do.

    Its message is printed as it is, without a traceback, and the program exits with status 1. A message
    has one line, or one line for each bad file or utterance.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())  # a file's name may be no text


@contextmanager
def refusals_reported(where: str | Path) -> Iterator[None]:
    """Turn what the operating system refuses into an InputError; `where` is named if the system names no file."""
    try:
        yield
    except OSError as error:
        cure = CURES.get(error.errno, "mend that and run the same command again")
        raise InputError(f"{error.filename or where}: {error.strerror or error}; {cure}") from None
