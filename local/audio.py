"""Audio files, through libsndfile; nothing found in a data directory is ever executed."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from local.errors import InputError

# The two commands that Kaldi's own recipes write; the file they would decode is read directly.
_FLAC = re.compile(r"flac\s+-c\s+-d\s+-s\s+(\S+)\s*\|")
_SPH2PIPE = re.compile(r"(?:\S*/)?sph2pipe\s+(?:-f\s+wav\s+)?(?:-p\s+)?(?:-c\s+1\s+)?(\S+)\s*\|")

# What a file that is no audio is answered with: TypeError if it is called x.raw, ValueError if its name cannot be one.
FAILED = (soundfile.LibsndfileError, OSError, TypeError, ValueError)


def path_of(entry: str) -> str:
    """The file behind one `wav.scp` entry, which is a path or one of the two standard commands."""
    if not entry.endswith("|"):
        return entry
    for pattern in (_FLAC, _SPH2PIPE):
        if found := pattern.fullmatch(entry):
            return found[1]
    raise InputError(
        f"{entry!r} is a command, and commands are not executed; "
        "expected a path, 'flac -c -d -s PATH |' or 'sph2pipe -f wav PATH |'"
    )


def sixteen_bit(samples: np.ndarray) -> np.ndarray:
    """Samples [N] in [-1, 1] as int16, from which 16-bit audio was decoded to them."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")


class Header(NamedTuple):
    """Sampling rate in Hz, channels, frames, and MD5 of the samples where the file is FLAC and has it."""

    rate: int
    channels: int
    frames: int
    digest: str = ""


def header(path: str | Path) -> Header:
    """What a file's header tells; raises InputError if it is missing, unreadable or visibly shorter than that.

    Of FLAC the STREAMINFO block alone is read (RFC 9639, section 8.2), which is ten times as fast as opening the file.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(42)
        fields = int.from_bytes(head[18:26])
        if len(head) == 42 and head[:4] == b"fLaC" and (frames := fields & (1 << 36) - 1) and fields >> 44:
            digest = head[26:].hex() if any(head[26:]) else ""
            return Header(fields >> 44, (fields >> 41 & 7) + 1, frames, digest)
        info = soundfile.info(str(path))
        if cut := _cut(path, info):
            raise InputError(f"{path}: cut short ({cut}), expected what its header says; restore or remove it")
        return Header(info.samplerate, info.channels, info.frames)
    except FAILED as error:
        size = Path(path).stat().st_size if Path(path).exists() else None
        found = "the file is missing" if size is None else "the file is empty" if size == 0 else str(error)
        raise InputError(f"{path}: unreadable audio ({found}); restore or remove it") from None


def _other(path: str | Path, channels: int, rate: int, sample_rate: int) -> InputError:
    cure = "convert it" if channels != 1 else "convert it, or set corpus.resample=true (of corpus=kaldi)"
    return InputError(f"{path}: {channels} channel(s) at {rate} Hz, expected 1 at {sample_rate} Hz; {cure}")


def duration(path: str | Path, sample_rate: int) -> float:
    """Seconds of audio by the header; raises InputError unless it is mono at `sample_rate` Hz."""
    found = header(path)
    if found.rate != sample_rate or found.channels != 1:
        raise _other(path, found.channels, found.rate, sample_rate)
    return found.frames / found.rate


def _cut(path: str | Path, info) -> str:
    """What is left of a file that ends before its header says, empty if it is whole: libsndfile reads on regardless.

    Writers into a pipe leave the largest count in the header of a WAV file; such a file is whole.
    """
    if info.format == "NIST":
        with open(path, "rb") as file:
            found = re.search(rb"^sample_count -i (\d+)", file.read(1024), re.MULTILINE)
        return f"{info.frames} of {int(found[1])} samples" if found and int(found[1]) > info.frames else ""
    if info.format == "OGG":
        return "its last page is broken" if "Junk after the last page" in info.extra_info else ""
    found = re.search(r"^ *(?:data|SSND|Data Size) +: (\d+) \(should be (\d+)\)", info.extra_info, re.MULTILINE)
    declared, there = map(int, found.groups()) if found else (0, 0)
    return f"{there} of {declared} bytes" if there < declared < 0x7FFFF000 else ""


def read(
    path: str | Path, sample_rate: int, start: float = 0.0, duration: float | None = None, resample: bool = False
) -> np.ndarray:
    """Samples [N], float32 in [-1, 1], of mono audio at `sample_rate` Hz; another rate is an error or resampled.

    `start` and `duration` in seconds cut a part out of a recording. Raises InputError if the file does not decode or
    has another format.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, channels = file.samplerate, file.channels
            if channels != 1 or (rate != sample_rate and not resample):
                raise _other(path, channels, rate, sample_rate)
            first = min(round(start * rate), file.frames)
            file.seek(first)
            count = -1 if duration is None else round((start + duration) * rate) - first
            samples = file.read(count, dtype="float32")
    except FAILED as error:
        raise InputError(f"{path}: audio does not decode ({error}); restore or remove it") from None
    if rate == sample_rate:
        return samples
    from scipy.signal import resample_poly  # a polyphase filter; imported late, for few corpora need it

    common = math.gcd(rate, sample_rate)
    return resample_poly(samples, sample_rate // common, rate // common).astype(np.float32, copy=False)
