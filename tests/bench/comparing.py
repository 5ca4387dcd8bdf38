"""How long the verdict on many systems takes, and the scoring of many utterances, beside jiwer and sclite.

python -m tests.bench.comparing TEXT      # sentences, plain or .gz; sclite from the PATH or Debian's sctk
"""

import argparse
import gzip
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jiwer

from local.scoring import write_scores
from tests.conftest import SCLITE

UTTERANCES, SYSTEMS, MANY = 5_000, 10, 100_000


def heard(words: list[str], vocabulary: list[str], rng: random.Random) -> list[str]:
    """A hypothesis with some 15 % of errors."""
    found = []
    for word in words:
        chance = rng.random()
        if chance < 0.1:
            found.append(rng.choice(vocabulary))
        elif chance < 0.13:
            found += [word, rng.choice(vocabulary)]
        elif chance > 0.02 + 0.13:
            found.append(word)
    return found


def timed(name: str, work) -> None:
    """Do it and say how long it took."""
    start, busy = time.monotonic(), sum(os.times()[:4])
    work()
    print(f"{name}: {time.monotonic() - start:.1f} s, {sum(os.times()[:4]) - busy:.1f} s of processors", flush=True)


def main(path: Path) -> None:
    """Make hypotheses of the sentences, and time."""
    rng = random.Random(0)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as lines:
        sentences = [words[:40] for words in (line.split() for line in lines) if len(words) > 2]
    vocabulary = sorted({word for words in sentences[:5000] for word in words})
    references = {f"s{i % 200:03d}-{i:06d}": sentences[i % len(sentences)] for i in range(MANY)}
    few = dict(list(references.items())[:UTTERANCES])
    with tempfile.TemporaryDirectory() as folder:
        names = ["ref", *(f"hyp{i}" for i in range(SYSTEMS))]
        for name in names:
            texts = {key: words if name == "ref" else heard(words, vocabulary, rng) for key, words in few.items()}
            lines = (f"{' '.join(words)} ({key})\n" for key, words in texts.items())
            (Path(folder) / f"{name}.trn").write_text("".join(lines))
        files = [f"{folder}/{name}.trn" for name in names]
        compare = [sys.executable, "-m", "local.compare", *files]
        timed(f"compare, {SYSTEMS} systems of {UTTERANCES:,} utterances",
              lambda: subprocess.run(compare, check=True, stdout=subprocess.DEVNULL))  # fmt: skip
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"  its memory: {peak:.0f} MB")
        if SCLITE:
            one = [SCLITE, "-r", files[0], "trn", "-i", "spu_id", "-o", "sum", "stdout"]
            each = [[*one, "-h", file, "trn"] for file in files[1:]]
            timed("  sclite, the error counts alone",
                  lambda: [subprocess.run(c, check=True, stdout=subprocess.DEVNULL) for c in each])  # fmt: skip
        hypotheses = {key: " ".join(heard(words, vocabulary, rng)) for key, words in references.items()}
        said = {key: " ".join(words) for key, words in references.items()}
        speakers = {key: key.partition("-")[0] for key in references}
        timed(f"scoring {MANY:,} utterances, words and characters, with all files",
              lambda: write_scores(Path(folder) / "score", said, hypotheses, speakers))  # fmt: skip
        pairs = list(said.values()), list(hypotheses.values())
        timed("  jiwer, the two rates alone", lambda: (jiwer.wer(*pairs), jiwer.cer(*pairs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="sentences, plain or .gz")
    main(parser.parse_args().text)
