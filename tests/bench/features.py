"""Features from FLAC against lhotse's, both with two processes, in one run.

    python -m tests.bench.features [--root $HOURGLASS_DATA/LibriSpeech] [--split train-clean-5]

Both compute 80 log-mel filterbanks, windows of 25 ms every 10 ms. We store float32 as it is, and CMVN statistics, and
check the samples; lhotse stores lilcom, which is lossy and a fourth of the size. Each side runs in a process of its
own; timed is the call, with its worker processes' start and imports. Decoding is the same files read by two processes
that do no more. `worker` is the CPU time of one process, which a busy machine does not change.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

EXTRACTOR = {
    "_target_": "local.extractors.Fbank", "sample_rate": 16000, "n_mels": 80, "win_length": 25, "hop_length": 10
}  # fmt: skip


def paths(root: str) -> list[Path]:
    return sorted(Path(root).glob("*/*/*.flac"))


def prepare(root: str, data: Path) -> float:
    """Write the data directory of a LibriSpeech split; return its seconds."""
    from local import audio, manifest

    rows = [(path.stem, path.parent.parent.name, str(path), audio.duration(path, 16000)) for path in paths(root)]
    manifest.write(data, [manifest.Utterance(*row) for row in sorted(rows, key=lambda row: row[0].encode())])
    return sum(row[3] for row in rows)


def ours(root: str, work: Path) -> float:
    from local.features import extract

    start = time.perf_counter()
    extract(work / "data", ["train"], EXTRACTOR, work / "features", work / "features", 2)
    return time.perf_counter() - start


def lhotse(root: str, work: Path) -> float:
    from lhotse import CutSet, Fbank, FbankConfig, Recording, RecordingSet

    torch.set_num_threads(1)  # there are two processes
    cuts = CutSet.from_manifests(RecordingSet.from_recordings(Recording.from_file(path) for path in paths(root)))
    extractor = Fbank(FbankConfig(sampling_rate=16000, num_filters=80))
    start = time.perf_counter()
    cuts.compute_and_store_features(extractor, work / "lhotse", num_jobs=2)
    return time.perf_counter() - start


def _decode(path: Path) -> int:
    from local import audio

    return len(audio.read(path, 16000))


def decoding(root: str, work: Path) -> float:
    with get_context("fork").Pool(2) as pool:
        pool.map(_decode, paths(root)[:2])
        start = time.perf_counter()
        pool.map(_decode, paths(root), chunksize=50)
        return time.perf_counter() - start


def worker(root: str, work: Path) -> float:
    """CPU seconds of one process that does it all, without imports; prints whether its memory grows."""
    from local.archive import Writer
    from local.config import make
    from local.features import SHARD, extract_shard
    from local.manifest import read

    torch.set_num_threads(1)
    make(EXTRACTOR)(np.zeros(16000, np.float32))
    peaks, utterances, start = [], read(work / "data/train"), time.process_time()
    for number in range(-(-len(utterances) // SHARD)):
        shard = utterances[number * SHARD : (number + 1) * SHARD]
        extract_shard(EXTRACTOR, False, False, "frames", shard, Writer(work / "worker", work / "worker", number))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"peak memory of a worker: {peaks[0]:.0f} MB after one shard, {peaks[-1]:.0f} MB after all {len(peaks)}")
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("HOURGLASS_DATA", ".") + "/LibriSpeech")
    parser.add_argument("--split", default="train-clean-5")
    parser.add_argument("--side", choices=("ours", "lhotse", "decoding", "worker"), help="run one side, in --work")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    root = f"{arguments.root}/{arguments.split}"
    if arguments.side:
        print(globals()[arguments.side](root, arguments.work))
        return
    work = Path(tempfile.mkdtemp(prefix="features-"))
    seconds = prepare(root, work / "data/train")
    took = {}
    for side in ("decoding", "ours", "lhotse", "worker"):
        command = [sys.executable, "-m", "tests.bench.features", "--side", side, "--work", str(work)]
        command += ["--root", arguments.root, "--split", arguments.split]
        *lines, last = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        took[side] = float(last)
        print(f"{side:9} {took[side]:7.2f} s, {seconds / took[side]:6.0f} x real time", flush=True)
    print(lines[-1])
    print(f"{took['lhotse'] / took['ours']:.2f} times as fast as lhotse; decoding alone is", end=" ")
    print(f"{100 * took['decoding'] / took['ours']:.0f} % of our time")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
