"""One process at a time makes a directory."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


def lock_of(out: Path) -> Path:
    """The lock of a directory lies beside it, for the directory is itself renamed."""
    return out.parent / f".{out.name}.lock"


def held(lock: Path) -> bool:
    """Whether some process holds a lock at this moment."""
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextmanager
def seized(lock: Path) -> Iterator[bool]:
    """Hold a lock, unless another process does: False then, without waiting."""
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


@contextmanager
def locked(out: Path, holder: str) -> Iterator[None]:
    """Hold the lock of `out`; the kernel frees that of a killed process."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_of(out), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.info("waiting for %s, which makes %s", file.read().strip() or "another process", out)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()}, {holder}\n")
        file.flush()
        yield
