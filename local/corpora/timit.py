"""TIMIT (LDC93S1; Garofolo et al. 1993), as the LDC lays it out, in upper or lower case.

<root>/<TRAIN or TEST>/<DR1 to DR8>/<speaker>/<sentence>.WAV   NIST SPHERE or RIFF; some copies have .WAV.wav
<root>/<TRAIN or TEST>/<DR1 to DR8>/<speaker>/<sentence>.PHN   "<first sample> <last sample> <phone>"
<root>/<TRAIN or TEST>/<DR1 to DR8>/<speaker>/<sentence>.WRD   "<first sample> <last sample> <word>"

A speaker's id begins with F or M. A sentence's begins with SA (two that all speakers read, which are left out, for
they would be in every split), SX (each read by seven) or SI (by one).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local import audio
from local.corpora import upper_case
from local.errors import InputError
from local.manifest import Utterance
from local.roots import located, utf8

SUFFIXES = {"phones": ".phn", "words": ".wrd"}


@dataclass(frozen=True)
class Timit:
    """`train` and `pretrain` are the TRAIN folder without the speakers of `dev` and `test`, wherever those lie.

    `transcript` is `phones`, the 61 of PHN with spaces between them and their times beside them, or `words`, those of
    WRD. Ids are put into lower case.
    """

    name: str
    root: str
    sample_rate: int
    transcript: str
    dev_speakers: list[str]
    test_speakers: list[str]

    def __post_init__(self):
        if self.transcript not in SUFFIXES:
            raise InputError(f"corpus.transcript={self.transcript}; expected phones or words")
        if not Path(self.root).is_dir():
            raise InputError(
                f"{self.root}: no such folder; TIMIT cannot be downloaded (LDC93S1, catalog.ldc.upenn.edu): "
                "set corpus.root to your copy"
            )

    def download(self, out: Path, workers: int) -> None:
        """Never called: without `root` there is no corpus."""

    def transcripts(self) -> list[str]:
        """Every file that a transcript was read from."""
        suffix = SUFFIXES[self.transcript]
        return sorted(str(p) for folder in self._speakers.values() for p in folder.iterdir() if _suffix(p) == suffix)

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        held_out = {"dev": self.dev_speakers, "test": self.test_speakers}
        if split in held_out:
            chosen = {speaker.lower() for speaker in held_out[split]}
            if missing := sorted(chosen - self._speakers.keys()):
                raise InputError(
                    f"{self._tree}: {len(missing)} of {len(chosen)} speakers of corpus.{split}_speakers are not there: "
                    f"{', '.join(missing)}; complete it, or choose among: {', '.join(sorted(self._speakers))}"
                )
        else:
            train = {name for name, path in self._speakers.items() if path.parent.parent.name.lower() == "train"}
            chosen = train - {speaker.lower() for speakers in held_out.values() for speaker in speakers}
        for speaker in sorted(chosen):
            files: dict[str, dict[str, Path]] = {}
            for path in sorted(self._speakers[speaker].iterdir(), key=lambda path: (-len(path.name), path.name)):
                files.setdefault(_sentence(path), {})[_suffix(path)] = path  # of .WAV and .WAV.wav, the former
            for sentence in sorted(files):
                kinds = files[sentence].keys() & {".wav", SUFFIXES[self.transcript]}
                if kinds and not sentence.startswith("sa"):
                    try:
                        yield self._utterance(speaker, sentence, files[sentence])
                    except InputError as error:
                        yield error

    def _utterance(self, speaker: str, sentence: str, files: dict[str, Path]) -> Utterance:
        suffix = SUFFIXES[self.transcript]
        for needed, other in ((".wav", suffix), (suffix, ".wav")):
            if needed not in files:
                raise InputError(f"{files[other]}: no {needed} file beside it, in upper or lower case; restore it")
        path = utf8(files[".wav"])
        rows = _rows(files[suffix])
        text = self.normalize(" ".join(label for _, _, label in rows))
        seconds = audio.duration(path, self.sample_rate)
        phones = self._times(files[suffix], rows, seconds) if self.transcript == "phones" else ""
        return Utterance(
            f"{speaker}_{sentence}", speaker, path, seconds, text, speaker[0], sentence=sentence, phones=phones
        )

    def _times(self, path: Path, rows: list[tuple[int, int, str]], seconds: float) -> str:
        """The rows of a PHN file as `Utterance.phones`."""
        rate, last = self.sample_rate, 0
        for begin, end, phone in rows:
            if not (last <= begin <= end and begin < seconds * rate):
                raise InputError(
                    f"{path}: '{begin} {end} {phone}' is before the phone above it, ends before it begins, or begins "
                    f"behind the audio's {seconds:.3f} s; restore it"
                )
            last = begin
        return "\n".join(f"{begin / rate:.5f} {(end - begin) / rate:.5f} {phone}" for begin, end, phone in rows)

    def normalize(self, text: str) -> str:
        """Phones as they are, for case is a part of their names; words in upper case, apostrophes kept."""
        return upper_case(text) if self.transcript == "words" else " ".join(text.split())

    @cached_property
    def _tree(self) -> Path:
        return located(self.root, lambda path: bool(_speaker_folders(path)))

    @cached_property
    def _speakers(self) -> dict[str, Path]:
        """The folder of each speaker."""
        folders = _speaker_folders(self._tree)
        if not folders:
            present = sorted(path.name for path in self._tree.iterdir())
            raise InputError(
                f"{self.root}: no TIMIT; looked for TRAIN/DR1/<speaker> and the like, in upper or lower case, in it, "
                f"near it and around it; found {', '.join(present)}; set corpus.root to the folder of TRAIN"
            )
        return {folder.name.lower(): folder for folder in folders}


def _speaker_folders(root: Path) -> list[Path]:
    parts = (path for path in root.glob("*") if path.name.lower() in ("train", "test"))
    return sorted(path for part in parts for path in part.glob("[Dd][Rr][1-8]/*") if os.path.isdir(path))


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _sentence(path: Path) -> str:
    return path.name.partition(".")[0].lower()


def _rows(path: Path) -> list[tuple[int, int, str]]:
    """The first sample, the one behind the last, and the label of each line of a PHN or WRD file."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); restore it") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 3 or not (row[0].isdigit() and row[1].isdigit()):
            raise InputError(f"{path}:{number}: {' '.join(row)!r}, expected '<first sample> <last sample> <label>'")
    return [(int(begin), int(end), label) for begin, end, label in rows]
