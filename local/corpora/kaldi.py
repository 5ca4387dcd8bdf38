"""A user's own audio, as Kaldi data directories (kaldi-asr.org/doc/data_prep.html).

wav.scp     <utterance> <path>, or with segments <recording> <path>
segments    <utterance> <recording> <start> <end>     seconds, an end of -1 is the recording's; optional
utt2spk     <utterance> <speaker>
text        <utterance> <words>                       optional in `pretrain`
spk2gender  <speaker> <m or f>                        optional
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from local import audio
from local.errors import InputError
from local.manifest import Utterance, read_table

TABLES = ("utt2spk", "wav.scp", "segments", "text", "spk2gender")
NEEDED = TABLES[:2]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kaldi:
    """`splits` names the data directory, or directories, of each split below `root`; text is put into upper case.

    Audio at another rate than `sample_rate` is refused, or left to be resampled if `resample` is true.
    """

    name: str
    root: str
    sample_rate: int
    resample: bool
    min_duration: float
    splits: dict[str, str | list[str]]

    def __post_init__(self):
        if not Path(self.root).is_dir():
            raise InputError(
                f"{self.root}: no such folder; set corpus.root to the folder of your Kaldi data directories"
            )

    def transcripts(self) -> list[str]:
        """Every table that was read."""
        paths = (
            directory / table for split in self.splits for directory in self._directories(split) for table in TABLES
        )
        return sorted({str(path) for path in paths if path.exists()})

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        for directory in self._directories(split):
            yield from self._of(directory)

    def _directories(self, split: str) -> list[Path]:
        names = self.splits[split]
        return [Path(self.root) / name for name in ([names] if isinstance(names, str) else names)]

    def _of(self, directory: Path) -> Iterator[Utterance | InputError]:
        tables = {n: read_table(directory / n) if n in NEEDED or (directory / n).exists() else {} for n in TABLES}
        recordings = {}
        for key, entry in tables["wav.scp"].items():
            try:
                path = audio.path_of(entry)
                recordings[key] = path, self._seconds(path)
            except InputError as error:
                yield error
        if rates := {rate for _, (_, rate) in recordings.values()} - {self.sample_rate}:
            log.warning("%s: audio at %s Hz, to be resampled to %d Hz", directory, sorted(rates), self.sample_rate)
        keys = tables["segments"] or tables["wav.scp"]
        for table in ("text", "utt2spk"):
            for key in tables[table].keys() - keys.keys():
                yield InputError(f"{directory}/{table}: {key} has no audio; remove the line, or add its audio")
        for key in keys:
            try:
                utterance = self._utterance(directory, key, tables, recordings)
            except InputError as error:
                yield error
            else:
                if utterance:
                    yield utterance

    def _seconds(self, path: str) -> tuple[float, int]:
        """Length and sampling rate of a recording."""
        if not self.resample:
            return audio.duration(path, self.sample_rate), self.sample_rate
        try:
            rate = soundfile.info(path).samplerate
        except (soundfile.LibsndfileError, OSError):
            rate = self.sample_rate
        return audio.duration(path, rate), rate  # says what is wrong if it cannot be read

    def _utterance(self, directory: Path, key: str, tables: dict, recordings: dict) -> Utterance | None:
        """None if its recording is broken, which has been said."""
        speaker = tables["utt2spk"].get(key)
        if speaker is None:
            raise InputError(f"{directory}/utt2spk: no line for {key}; add its speaker")
        recording, start, end = key, 0.0, -1.0
        if tables["segments"]:
            recording, start, end = _segment(directory, key, tables["segments"][key])
            if recording not in tables["wav.scp"]:
                raise InputError(f"{directory}/segments: {key} is of {recording}, which wav.scp lacks; add its audio")
        if recording not in recordings:
            return None
        path, (seconds, _) = recordings[recording]
        if end > seconds + 0.01 or start >= seconds:
            raise InputError(
                f"{directory}/segments: {key} is {start} s to {end} s of {recording}, of {seconds:.2f} s; mend it"
            )
        return Utterance(
            key, speaker, path, (min(end, seconds) if end >= 0 else seconds) - start,
            " ".join(tables["text"].get(key, "").upper().split()), tables["spk2gender"].get(speaker, ""),
            recording=recording if tables["segments"] else "", start=start,
        )  # fmt: skip


def _segment(directory: Path, key: str, line: str) -> tuple[str, float, float]:
    """Recording, start and end in seconds; the end is -1 where it is the recording's."""
    try:
        recording, start, end = line.split()
        start, end = float(start), float(end)
        if start < 0 or (end <= start and end != -1):
            raise ValueError
    except ValueError:
        raise InputError(
            f"{directory}/segments: {key} {line!r}, expected '<recording> <start> <end>' in seconds, start before end"
        ) from None
    return recording, start, end
