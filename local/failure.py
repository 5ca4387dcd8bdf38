"""Why a directory was not made: `<dir>.failed` or `<dir>.stopped`, which the next attempt removes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local.errors import InputError


class Stopped(Exception):
    """A search has no more use for a training; it could go on from its last checkpoint."""


def _record(out: str | Path, state: str) -> Path:
    return Path(f"{out}.{state}")


def reason(out: str | Path, state: str = "failed") -> str | None:
    """The first line of why the last attempt at `out` failed, or was `stopped`, or None."""
    try:
        return _record(out, state).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return None


def record(out: Path, why: str, state: str = "failed") -> None:
    """Write why the attempt at `out` came to nothing."""
    with suppress(OSError):  # which may be that nothing can be written there
        out.parent.mkdir(parents=True, exist_ok=True)
        _record(out, state).write_text(f"{why}\n", encoding="utf-8")


def told(error: Exception) -> str:
    """An error as a sentence: a user's mistake as it is, anything else by its kind too."""
    return str(error) if isinstance(error, InputError | OSError | Stopped) else f"{type(error).__name__}: {error}"


@contextmanager
def recorded(out: Path) -> Iterator[None]:
    """Write the reason if what is done in the context, which makes `out`, fails or is stopped."""
    forget(out)
    try:
        yield
    except Exception as error:
        record(out, told(error), "stopped" if isinstance(error, Stopped) else "failed")
        raise
    forget(out)  # of another process, for which this one waited


def forget(out: str | Path) -> None:
    """Remove what an earlier attempt left."""
    for state in ("failed", "stopped"):
        _record(out, state).unlink(missing_ok=True)
