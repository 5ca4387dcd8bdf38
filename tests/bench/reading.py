"""Reading an archive against kaldiio: one utterance at random, all into memory, a shuffled epoch.

    python -m tests.bench.reading [--root $HOURGLASS_DATA/LibriSpeech] [--split train-clean-5]

The archive is warm: it was read once before. Counted is CPU time in one thread, which on an idle machine is the time
that passes, and on a shared one means the same. kaldiio's epoch loads the same batches utterance by utterance and pads
them, as a data loader over an scp file does.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import torch

from lightning_modules.batch import Batcher
from local import archive
from local.ark import Reader
from tests.bench.features import ours, prepare


def seconds_of(function: Callable, repeats: int = 3) -> float:
    """The fastest of some runs, the first of which warms up."""
    took = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        took.append(time.process_time() - start)
    return min(took)


def random_access(directory: Path) -> None:
    """Milliseconds an utterance, each in an array of its own."""
    reader, rival = Reader(directory / "feats.scp"), kaldiio.load_scp(str(directory / "feats.scp"))
    keys = random.Random(0).choices(list(reader.places), k=2000)
    assert all(np.array_equal(reader[key], rival[key]) for key in keys)
    took = []
    for table in (reader, rival):

        def access(table=table) -> None:
            for key in keys:
                table[key]

        took.append(1000 * seconds_of(access) / len(keys))
    one, other = took
    print(f"random access: {one:.3f} ms an utterance, kaldiio {other:.3f} ms: {other / one:.1f} times as fast")


def epoch(directory: Path, seconds: float) -> None:
    """A shuffled epoch in batches of 50 s."""
    read = seconds_of(lambda: archive.read(directory, "utterance"), 2)
    frames = archive.read(directory, "utterance")
    print(f"all into memory, normalized: {read:.2f} s, {seconds / read:.0f} x real time")
    batcher = Batcher(frames, batch_frames=5000, seed=0)
    steps = len(batcher.plan(0))
    rival = kaldiio.load_scp(str(directory / "feats.scp"))

    def kaldiios() -> None:
        for indices in batcher.plan(0):
            torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(rival[frames.ids[i]].copy()) for i in indices], batch_first=True
            )

    def batches() -> None:
        for step in range(steps):
            batcher.at(step)

    one, other = seconds_of(batches), seconds_of(kaldiios)
    print(
        f"a shuffled epoch of {steps} batches: {seconds / one:.0f} x real time, "
        f"kaldiio {seconds / other:.0f}: {other / one:.1f} times as fast"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("HOURGLASS_DATA", ".") + "/LibriSpeech")
    parser.add_argument("--split", default="train-clean-5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="reading-"))
    seconds = prepare(f"{arguments.root}/{arguments.split}", work / "data/train")
    ours("", work)
    random_access(work / "features/train")
    epoch(work / "features/train", seconds)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
