"""How long the statistics of 10 arms with 3 seeds each take, on a test set of 5,000 utterances.

    python -m tests.bench.report_time

From score directories on disk to results.json and RESULTS.md, in a process of its own; that process prints the
seconds since its imports, this one those since it was started. 73 speakers, 10 words an utterance; rates differ by
arm, seed and speaker.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARMS = ("none", "wide", "random", "masked", "masked_frozen", "dense", "denoising", "predictive", "pca", "quantized")
SEEDS = (1, 2, 3)
UTTERANCES = {"test": 5000, "dev": 500}
SPEAKERS = 73
WORDS = ("a", "little", "sound", "of", "speech", "over", "there", "and", "the", "rest")


def hypothesis(rng: random.Random, words: list[str], rate: float) -> str:
    """The words with errors of all three kinds."""
    kept = []
    for word in words:
        kind = rng.random() / rate
        kept += [word] if kind >= 1 else ["wrong"] if kind < 0.6 else [word, "more"] if kind < 0.8 else []
    return " ".join(kept)


def make(root: Path) -> None:
    """Score every arm and seed into `root/<split>/<arm>-<seed>`."""
    from local.scoring import write_scores

    rng = random.Random(0)
    difficulty = [rng.gammavariate(4, 0.25) for _ in range(SPEAKERS)]
    for split, utterances in UTTERANCES.items():
        speakers = {f"{split}-{i % SPEAKERS:02d}-{i:04d}": i % SPEAKERS for i in range(utterances)}
        references = {u: rng.choices(WORDS, k=rng.randint(4, 16)) for u in speakers}
        for place, arm in enumerate(ARMS):
            for seed in SEEDS:
                rate = rng.uniform(0.17, 0.23) - 0.005 * place
                texts = {u: hypothesis(rng, w, rate * difficulty[speakers[u]]) for u, w in references.items()}
                out = root / split / f"{arm}-{seed}"
                names = {u: f"speaker{k:02d}" for u, k in speakers.items()}
                write_scores(out, {u: " ".join(w) for u, w in references.items()}, texts, names)


def measure(root: Path) -> None:
    """Report on `root`; print the seconds that took, without Python's start and imports."""
    from local.results import Cell, entries
    from local.tables import render_markdown

    start = time.perf_counter()
    cells = [
        Cell(
            corpus="synthetic", label_hours=None, split="test", decoder="greedy", arm=arm, frontend="finetuned",
            signature=arm, seed=seed, score_dir=root / f"test/{arm}-{seed}", dev_score_dir=root / f"dev/{arm}-{seed}",
            parameters=1_000_000, updates=1000, dropped=0, device_seconds=60.0,
        )
        for arm in ARMS
        for seed in SEEDS
    ]  # fmt: skip
    found = entries(cells)
    (root / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (root / "RESULTS.md").write_text(render_markdown(found), encoding="utf-8")
    reference, compared = found[0]["reference"], len(found[0]["comparisons"])
    print(
        f"{reference['utterances']:,} utterances, {reference['words']:,} words, {len(ARMS)} arms x {len(SEEDS)} seeds,"
    )
    print(f"{compared} comparisons: {time.perf_counter() - start:.2f} s of statistics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("made", nargs="?", type=Path, help=argparse.SUPPRESS)  # what its own process measures
    if made := parser.parse_args().made:
        measure(made)
        return
    with tempfile.TemporaryDirectory() as root:
        make(Path(root))
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "tests.bench.report_time", root], check=True)
            print(f"{time.perf_counter() - start:.2f} s with Python's start and imports", flush=True)


if __name__ == "__main__":
    main()
