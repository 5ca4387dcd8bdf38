"""LibriSpeech and mini LibriSpeech, as they unpack (openslr.org/12 and /31; Panayotov et al. 2015).

<root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
<root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt   "<utterance> <WORDS IN UPPER CASE>"
<root>/SPEAKERS.TXT                                               "<speaker> | M or F | ..."
<root>/CHAPTERS.TXT                                               "<chapter> | <speaker> | ... | ... | ... | <book> |"
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local import audio
from local.corpora import listed, upper_case
from local.errors import InputError
from local.manifest import Utterance, read_table
from local.roots import located, utf8

# The resource on OpenSLR that has each subset, and the MD5 in that resource's md5sum.txt.
SUBSETS = {
    "dev-clean": ("12", "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": ("12", "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": ("12", "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": ("12", "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-100": ("12", "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": ("12", "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": ("12", "d1a0fd59409feb2c614ce4d30c387708"),
    "dev-clean-2": ("31", "6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": ("31", "5df7d4e78065366204ca6845bb08f490"),
}


@dataclass(frozen=True)
class LibriSpeech:
    """`splits` names the folders of each split.

    A missing `root` is downloaded from `mirror` if it is `download_to`; any other has to be there.
    """

    name: str
    root: str
    download_to: str
    mirror: str
    sample_rate: int
    splits: dict[str, str | list[str]]

    def __post_init__(self):
        if Path(self.root).is_dir():
            return
        if self.root != self.download_to:
            raise InputError(
                f"{self.root}: no such folder; set corpus.root to where the split folders lie, or leave it out to "
                "download them"
            )
        for folder in self._folders():
            if folder not in SUBSETS:
                raise InputError(
                    f"corpus.splits: {folder} is no subset that OpenSLR has ({', '.join(SUBSETS)}); "
                    "mend it, or set corpus.root to where it lies"
                )

    def download(self, out: Path, workers: int) -> None:
        """Fetch and unpack into `out` the folders that the splits name, but for those that are there already.

        A folder that a download for other splits left beside `out` is not fetched again.
        """
        from local.fetching import fetch, unpack

        work = out / "checkpoints"
        for folder in self._folders():
            resource, md5 = SUBSETS[folder]
            archive, unpacked = work / f"{folder}.tar.gz", work / "unpacked"
            shutil.rmtree(unpacked, ignore_errors=True)
            if (out / folder).is_dir():
                continue
            done = (marker.parent for marker in sorted(out.parent.glob("librispeech-*/done.json")))
            if tree := next((tree for tree in done if (tree / folder).is_dir()), None):
                shutil.copytree(tree / folder, unpacked / "LibriSpeech" / folder, copy_function=os.link)
                for table in tree.glob("*.TXT"):
                    shutil.copy(table, unpacked / "LibriSpeech")
            else:
                fetch(f"{self.mirror}/{resource}/{archive.name}", archive, md5)
                unpack(archive, unpacked)
            if not (unpacked / "LibriSpeech" / folder).is_dir():
                raise InputError(f"{archive.name}: no LibriSpeech/{folder} in it; choose another corpus.mirror")
            for table in (unpacked / "LibriSpeech").glob("*.TXT"):
                table.replace(out / table.name)
            (unpacked / "LibriSpeech" / folder).rename(out / folder)
            archive.unlink(missing_ok=True)

    def transcripts(self) -> list[str]:
        """Every transcript file of every split."""
        chapters = (chapter for split in self.splits for chapter in self._chapters(split))
        return sorted({str(path) for path in map(_transcripts, chapters) if path.exists()})

    def utterances(self, split: str) -> Iterator[Utterance | InputError]:
        """The utterances of a split, with an InputError in place of each one that is broken."""
        genders, books = self._column("SPEAKERS.TXT", 1), self._column("CHAPTERS.TXT", 5)
        for chapter in self._chapters(split):
            try:
                texts = read_table(_transcripts(chapter))
            except InputError as error:
                yield error
                continue
            speaker = chapter.parent.name
            known = {
                "gender": genders.get(speaker, "").lower(), "session": f"{speaker}-{chapter.name}",
                "book": books.get(chapter.name, ""),
            }  # fmt: skip
            recorded = {path.stem: path for path in sorted(chapter.glob("*.flac"))}
            for key in sorted(texts.keys() | recorded.keys()):
                try:
                    yield self._utterance(key, speaker, chapter, texts, recorded, known)
                except InputError as error:
                    yield error

    def _utterance(self, key: str, speaker: str, chapter: Path, texts: dict, recorded: dict, known: dict) -> Utterance:
        table = _transcripts(chapter)
        if key not in recorded:
            raise InputError(f"{table}: text for {key}, but no {key}.flac beside it; restore the audio")
        path = utf8(recorded[key])
        if key not in texts:
            raise InputError(f"{path}: no line for it in {table.name}; restore the transcript")
        seconds = audio.duration(path, self.sample_rate)
        return Utterance(key, speaker, path, seconds, self.normalize(texts[key]), **known)

    def normalize(self, text: str) -> str:
        """Upper case, as the official transcripts are; apostrophes stay, and there is no other punctuation."""
        return upper_case(text)

    def _folders(self) -> list[str]:
        """The folders of all splits, those of mini LibriSpeech first: the tables of the last one stay."""
        folders = {folder for names in self.splits.values() for folder in listed(names)}
        return sorted(folders, key=lambda folder: (SUBSETS.get(folder, ("31",))[0] == "12", folder))

    @cached_property
    def _tree(self) -> Path:
        return located(self.root, lambda path: all(os.path.isdir(path / folder) for folder in self._folders()))

    def _chapters(self, split: str) -> Iterator[Path]:
        for folder in listed(self.splits[split]):
            path = self._tree / folder
            if not path.is_dir():
                present = sorted(p.name for p in self._tree.iterdir() if p.is_dir())
                raise InputError(
                    f"{path}: no such folder for corpus.splits.{split}, nor is it near; {self._tree} holds: "
                    f"{', '.join(present)}; set corpus.root to the folder above the splits'"
                )
            yield from sorted(p for p in path.glob("*/*") if p.is_dir())

    def _column(self, table: str, number: int) -> dict[str, str]:
        path = self._tree / table
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [[field.strip() for field in line.split("|")] for line in lines if not line.startswith(";")]
        return {row[0]: row[number] for row in rows if len(row) > number}


def _transcripts(chapter: Path) -> Path:
    return chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
