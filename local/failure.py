"""Why a directory was not made: `<dir>.failed`, which the next attempt removes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from local.errors import InputError


def _record(out: str | Path) -> Path:
    return Path(f"{out}.failed")


def reason(out: str | Path) -> str | None:
    """The first line of why the last attempt at `out` failed, or None."""
    try:
        return _record(out).read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return None


def told(error: Exception) -> str:
    """An error as a sentence: a user's mistake as it is, anything else by its kind too."""
    return str(error) if isinstance(error, InputError | OSError) else f"{type(error).__name__}: {error}"


@contextmanager
def recorded(out: Path) -> Iterator[None]:
    """Write the reason if what is done in the context, which makes `out`, fails."""
    _record(out).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # which may be that nothing can be written there
            out.parent.mkdir(parents=True, exist_ok=True)
            _record(out).write_text(f"{told(error)}\n", encoding="utf-8")
        raise
    _record(out).unlink(missing_ok=True)  # of another process, for which this one waited
