"""A user's own audio, as Kaldi data directories (kaldi-asr.org/doc/data_prep.html): wav.scp, utt2spk, text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import audio
from local.errors import InputError
from local.manifest import Utterance, read_table


@dataclass(frozen=True)
class Kaldi:
    """`splits` names the data directory of each split below `root`; transcripts are put into upper case."""

    name: str
    root: str
    sample_rate: int
    min_duration: float
    splits: dict[str, str]

    def download(self, out: Path, workers: int) -> None:
        """Say what is missing."""
        raise InputError(f"{self.root}: no such folder; set corpus.root to the folder of your Kaldi data directories")

    def transcripts(self) -> list[str]:
        """Every table that was read."""
        tables = [Path(self.root) / self.splits[s] / t for s in self.splits for t in ("wav.scp", "utt2spk", "text")]
        return sorted({str(path) for path in tables if path.exists()})

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        directory = Path(self.root) / self.splits[split]
        if (directory / "segments").exists():
            raise InputError(f"{directory}/segments: segments are not supported; cut the audio into one file each")
        speakers = read_table(directory / "utt2spk")
        texts = read_table(directory / "text") if (directory / "text").exists() else {}
        for key, entry in read_table(directory / "wav.scp").items():
            try:
                if key not in speakers:
                    raise InputError(f"{directory}/utt2spk: no line for {key} of wav.scp; add its speaker")
                path = audio.path_of(entry)
                text = " ".join(texts.get(key, "").upper().split())
                yield Utterance(key, speakers[key], path, audio.duration(path, self.sample_rate), text)
            except InputError as error:
                yield error
