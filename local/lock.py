"""One process at a time makes a directory."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(out: Path, holder: str) -> Iterator[None]:
    """Hold `.<name>.lock` beside `out`, which is itself renamed; the kernel frees the lock of a killed process."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.parent / f".{out.name}.lock", "a+", encoding="utf-8") as file:
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
