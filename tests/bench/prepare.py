"""How fast and in how much memory stage 1 prepares LibriSpeech trees, real and synthetic, of growing size.

    python -m tests.bench.prepare [--sizes 10000,100000,1000000] [--real ROOT]

A synthetic tree has the official layout, made of hard links to FLAC files that hold a header and nothing else: stage 1
reads headers only. The rival is soundfile.info, which alone reads the same headers once they are cached, in the same
order of splits; `pretrain` is `train`, and its utterances count again. The real stage prepares each tree in a process
of its own. CPU seconds are counted beside wall time, for other programs on the machine hardly change them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import soundfile

from tests.conftest import REPOSITORY

PER_CHAPTER, CHAPTERS = 100, 5  # utterances, and chapters a speaker
LINKS = 10_000  # of one file; file systems limit them
WORDS = (REPOSITORY / "README.md").read_text(encoding="utf-8").upper().split()
WORDS = sorted({"".join(filter(str.isalpha, word)) for word in WORDS} - {""})


def synthesize(root: Path, size: int) -> None:
    """A LibriSpeech root with `size` utterances in train, and one speaker each in dev and test."""
    folder = root / "headers"
    folder.mkdir(parents=True)
    sizes = {"train": size, "dev": 100, "test": 100}
    number = 0
    for split, count in sizes.items():
        for first in range(0, count, PER_CHAPTER):
            chapter_number = number // PER_CHAPTER
            speaker = 1000 + chapter_number // CHAPTERS if split == "train" else {"dev": 1, "test": 2}[split]
            chapter = root / split / str(speaker) / str(100_000 + chapter_number)
            chapter.mkdir(parents=True)
            name, lines = f"{speaker}-{chapter.name}", []
            for i in range(min(PER_CHAPTER, count - first)):
                if number % LINKS == 0 or split != "train":
                    source = folder / f"{number}.flac"
                    source.write_bytes(header(number))
                os.link(source, chapter / f"{name}-{i:04d}.flac")
                text = " ".join(WORDS[(number * 7919 + 31 * k * k) % len(WORDS)] for k in range(number % 30 + 5))
                lines.append(f"{name}-{i:04d} {text} {spelled(number)}\n")
                number += 1
            (chapter / f"{name}.trans.txt").write_text("".join(lines))


def spelled(number: int) -> str:
    """A number as words, so that no two utterances say the same, of a vocabulary that does not grow."""
    size = len(WORDS)
    return " ".join((WORDS[number % size], WORDS[number // size % size], WORDS[number // size**2]))


def header(number: int) -> bytes:
    """A FLAC file of 5 to 15 seconds of 16 kHz mono, up to where its frames would begin."""
    samples = 80_000 + number * 7919 % 160_000
    packed = (16000 << 44 | 0 << 41 | 15 << 36 | samples).to_bytes(8)
    return b"fLaC\x80\x00\x00\x22\x10\x00\x10\x00" + bytes(6) + packed + number.to_bytes(16)


def reading(root: Path, splits: dict[str, str]) -> tuple[int, float]:
    """How many utterances there are, and the CPU seconds that reading their headers takes, once they are cached."""
    paths = [str(path) for folder in splits.values() for path in (root / folder).rglob("*.flac")]
    for path in paths:
        soundfile.info(path)
    start = time.process_time()
    for path in paths:
        soundfile.info(path)
    return len(paths), time.process_time() - start


def prepare(root: Path, splits: dict[str, str]) -> dict:
    """CPU and wall seconds of stage 1, the stage alone and the process, and its peak memory."""
    settings = [f"corpus.splits.{split}=[{folder}]" for split, folder in splits.items()]
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "local.run", "stage=1", "stop_stage=1", "arm=none", "logger=csv",
             "corpus=librispeech", f"corpus.root={root}", *settings],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (marker,) = Path(folder).glob("data/*/done.json")
        found = json.loads(marker.read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": found["wall_seconds"], "megabytes": found["peak_memory_bytes"] / 1e6}


def measure(what: str, root: Path, splits: dict[str, str]) -> None:
    with get_context("spawn").Pool(1) as pool:  # a process inherits its parent's peak memory, so the parent stays small
        utterances, headers = pool.apply(reading, (root, splits))
    found = prepare(root, splits)
    print(
        f"{what}: {utterances} utterances; headers alone {headers:.2f} s of CPU; stage 1 {found['cpu']:.2f} s of CPU "
        f"({utterances / found['cpu']:.0f} utterances a second, {found['cpu'] / headers:.2f} times the headers), "
        f"{found['wall']:.1f} s of wall time ({utterances / found['wall']:.0f} utterances a second), "
        f"peak {found['megabytes']:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="utterances of the synthetic trees")
    parser.add_argument("--real", type=Path, help="a root with train-clean-5, heldout-dev and heldout-test")
    arguments = parser.parse_args()
    if arguments.real:
        splits = {"pretrain": "train-clean-5", "train": "train-clean-5", "dev": "heldout-dev", "test": "heldout-test"}
        measure("real", arguments.real, splits)
    for size in map(int, filter(None, arguments.sizes.split(","))):
        with tempfile.TemporaryDirectory() as folder:
            synthesize(Path(folder), size)
            splits = {"pretrain": "train", "train": "train", "dev": "dev", "test": "test"}
            measure(f"{size}", Path(folder), splits)


if __name__ == "__main__":
    main()
