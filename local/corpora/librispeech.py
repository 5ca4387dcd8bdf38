"""LibriSpeech and mini LibriSpeech, as they unpack (openslr.org/12 and /31; Panayotov et al. 2015).

<root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
<root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt   "<utterance> <WORDS IN UPPER CASE>"
<root>/SPEAKERS.TXT                                               "<speaker> | M or F | ..."
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import audio
from local.errors import InputError
from local.manifest import Utterance


@dataclass(frozen=True)
class LibriSpeech:
    """`splits` names the folders of each split; transcripts are upper case already and are left as they are."""

    name: str
    root: str
    sample_rate: int
    min_duration: float
    splits: dict[str, list[str]]

    def download(self, out: Path, workers: int) -> None:
        """Say where the corpus comes from."""
        raise InputError(
            f"{self.root}: no such folder; unpack LibriSpeech from openslr.org/12 there, "
            "or set corpus.root to where its split folders lie"
        )

    def transcripts(self) -> list[str]:
        """Every transcript file of every split."""
        return sorted({str(path) for split in self.splits for path in self._chapters(split)})

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        genders = self._genders()
        for chapter in self._chapters(split):
            speaker = chapter.parent.parent.name
            texts: dict[str, str] = {}
            for line in chapter.read_text(encoding="utf-8").splitlines():
                key, _, text = line.partition(" ")
                if key in texts:
                    yield InputError(f"{chapter}: {key} comes twice; ids must be unique")
                texts[key] = text
            recorded = {path.stem: path for path in sorted(chapter.parent.glob("*.flac"))}
            for key in sorted(texts.keys() | recorded.keys()):
                if key not in recorded:
                    yield InputError(f"{chapter}: text for {key}, but no {key}.flac beside it; restore the audio")
                elif key not in texts:
                    yield InputError(f"{recorded[key]}: no line for it in {chapter.name}; restore the transcript")
                else:
                    try:
                        seconds = audio.duration(recorded[key], self.sample_rate)
                    except InputError as error:
                        yield error
                    else:
                        yield Utterance(
                            key, speaker, str(recorded[key]), seconds, texts[key].strip(), genders.get(speaker, "")
                        )

    def _chapters(self, split: str) -> list[Path]:
        chapters = []
        for folder in self.splits[split]:
            path = Path(self.root) / folder
            if not path.is_dir():
                present = sorted(p.name for p in Path(self.root).iterdir() if p.is_dir())
                raise InputError(
                    f"{path}: no such folder for corpus.splits.{split}; {self.root} holds: {', '.join(present)}"
                )
            for chapter in sorted(p for p in path.glob("*/*") if p.is_dir()):
                transcripts = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
                if not transcripts.exists():
                    raise InputError(f"{transcripts}: not found; restore it, or remove the chapter")
                chapters.append(transcripts)
        return chapters

    def _genders(self) -> dict[str, str]:
        table = Path(self.root) / "SPEAKERS.TXT"
        if not table.exists():
            return {}
        rows = [line.split("|") for line in table.read_text(encoding="utf-8").splitlines() if not line.startswith(";")]
        return {row[0].strip(): row[1].strip().lower() for row in rows if len(row) > 1}
