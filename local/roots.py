"""Where on a user's disk a corpus lies."""

import logging
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from local.errors import InputError

log = logging.getLogger(__name__)


def located(root: str, holds: Callable[[Path], bool]) -> Path:
    """`root` if it `holds` the corpus, else the nearest folder that does, up to two levels in it or around it.

    `root` itself if none does. A folder that cannot be read counts as holding nothing.
    """
    path = Path(root)
    around = path.resolve().parents[:2]
    candidates = chain([path], sorted(path.glob("*")), around, sorted(path.glob("*/*")))
    found = next((folder for folder in candidates if holds(folder)), path)
    if found != path:
        log.warning("corpus.root=%s: the corpus lies in %s, which is used", root, found)
    return found


def utf8(path: Path) -> str:
    """The path as text. Raises InputError if that is no UTF-8, which no data directory can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: the name is not UTF-8, expected one that a wav.scp can hold; rename it") from None
    return str(path)
