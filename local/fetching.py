"""Files from a server: resumed after a cut, held against a published digest, unpacked without trust."""

import errno
import hashlib
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from local.errors import InputError

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


def _cut(url: str, what: object) -> ConnectionError:
    """What a stage keeps its partial result for, so that the next run continues."""
    return ConnectionError(errno.ECONNABORTED, str(what), url)


def fetch(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`, continuing what a former run left in `<path>.part`; nothing if `path` is there.

    Raises ConnectionError if the connection is refused or cut, or if the whole has another MD5 (hexadecimal); what
    has another MD5 is removed.
    """
    if path.exists():
        return
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _receive(url, part)
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise _cut(url, getattr(error, "reason", error) if not isinstance(error, HTTPError) else error) from None
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise _cut(url, f"MD5 {found}, expected {md5}; what came is removed")
    part.rename(path)


def _receive(url: str, part: Path) -> None:
    """Append to `part` what is missing of `url`; from its start if the server does not know ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have:  # nothing lies behind what is there already
            return
        raise
    console = Console(stderr=True)
    columns = TextColumn(url), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with response, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        have = have if response.status == 206 else 0
        size = response.headers["Content-Length"]
        total = None if size is None else have + int(size)
        task = progress.add_task("", total=total, completed=have)
        with open(part, "ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"cut after {part.stat().st_size} of {total} bytes")


def unpack(archive: Path, out: Path) -> None:
    """Unpack a tar archive into `out`, by tarfile's `data` filter.

    Raises InputError if it is damaged or has a member that would leave `out` or is neither file nor folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise InputError(f"{archive}: this Python cannot unpack it safely, expected 3.11.4 or later; use a newer one")
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")
    except tarfile.FilterError as error:
        raise InputError(f"{archive}: {error}; such an archive is refused, choose another mirror") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"{archive}: damaged archive ({error}); fetch it again") from None
