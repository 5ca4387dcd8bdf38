"""Kaldi's ark files, of matrices and of 16-bit audio: read at random, and of matrices written in one go."""

import os
import struct
from pathlib import Path

import kaldiio
import numpy as np

from local.errors import InputError
from local.manifest import read_table

OPEN = 256  # files that a reader keeps open
HEADER = struct.Struct("<5sbibi")  # of a binary matrix: its kind, then 4 and the rows, 4 and the columns
KINDS = {b"\0BFM ": np.float32, b"\0BDM ": np.float64}
WAV = struct.Struct("<4s36xI")  # of mono audio, as kaldiio writes it: RIFF, and the bytes of the samples


class Reader:
    """Random access to the matrices of an scp file: one seek each, in ark files that stay open.

    Audio is read as a matrix of one column, int16.
    """

    def __init__(self, scp: Path) -> None:
        self.scp, self.places, self.files = scp, read_table(scp), {}

    def __getitem__(self, key: str) -> np.ndarray:
        """The matrix of one utterance; raises InputError if there is none."""
        file, offset, shape, kind = self._find(key)
        matrix = np.empty(shape, kind)
        self._fill(matrix, file, offset, key)
        return matrix

    def shape(self, key: str) -> tuple[int, int]:
        """Rows and columns of one utterance's matrix."""
        return self._find(key)[2]

    def into(self, key: str, out: np.ndarray) -> None:
        """Read one utterance's matrix into `out`, of its shape and type, without a copy."""
        file, offset, shape, kind = self._find(key)
        if shape != out.shape or kind != out.dtype:
            raise InputError(
                f"{self.places[key]}: {key} has {shape} {kind.__name__}, expected {out.shape} {out.dtype}; "
                "run the stage that wrote it again"
            )
        self._fill(out, file, offset, key)

    def _find(self, key: str) -> tuple[int, int, tuple[int, int], type]:
        """File descriptor, offset of the values, shape and type of a matrix."""
        if key not in self.places:
            raise InputError(f"{self.scp}: no utterance {key}; run stage 2 (features) again")
        path, _, offset = self.places[key].rpartition(":")
        if path not in self.files:
            if len(self.files) == OPEN:
                self.files.pop(next(iter(self.files))).close()
            self.files[path] = open(path, "rb", buffering=0)  # noqa: SIM115
        file, offset = self.files[path].fileno(), int(offset)
        header = os.pread(file, WAV.size, offset)
        if header[:4] == b"RIFF" and len(header) == WAV.size:
            return file, offset + WAV.size, (WAV.unpack(header)[1] // 2, 1), np.int16
        if header[:5] not in KINDS or len(header) < HEADER.size:
            raise InputError(f"{self.places[key]}: no binary matrix of {key} there; run the stage that wrote it again")
        _, _, rows, _, columns = HEADER.unpack_from(header)
        return file, offset + HEADER.size, (rows, columns), KINDS[header[:5]]

    def _fill(self, matrix: np.ndarray, file: int, offset: int, key: str) -> None:
        rest = memoryview(matrix.reshape(-1).view(np.uint8))
        while rest:
            count = os.preadv(file, [rest], offset)
            if not count:
                raise InputError(f"{self.places[key]}: the file ends in {key}; run the stage that wrote it again")
            rest, offset = rest[count:], offset + count


def write(partial: Path, final: Path, matrices: dict[str, np.ndarray]) -> None:
    """Write matrices to `partial`.ark and `partial`.scp, which names `final`.ark, where the former will be."""
    lines = []
    with open(f"{partial}.ark", "wb") as file:
        for key, matrix in matrices.items():
            lines.append(f"{key} {final}.ark:{file.tell() + len(key) + 1}\n")  # Kaldi's offsets point behind the key
            kaldiio.save_ark(file, {key: matrix})
    Path(f"{partial}.scp").write_text("".join(lines), encoding="utf-8")
