"""Augmented training batches against SpeechBrain's own classes, in one run.

    python -m tests.bench.augmentation [--root $HOURGLASS_DATA/LibriSpeech] [--split train-clean-5] [--device cuda]

Seconds of audio a second, in one thread: batches of stored frames; of stored audio, unchanged; of stored audio with
speed, rooms and noise. The rival makes the same batches from samples in memory by SpeedPerturb, AddReverb and AddNoise,
which read the same recordings by their CSV files, and its Fbank; it gives a room and noises to half of the batches
where we give each half of the utterances a room or noise of its own. On the CPU counted is CPU time, which on a shared
machine means the same as on an idle one.
"""

import argparse
import csv
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from lightning_modules.augmentation import Audio, AudioBatcher
from lightning_modules.batch import Batcher
from local import archive, manifest
from local.config import make
from local.features import extract_shard
from tests.bench.features import EXTRACTOR, prepare

STEPS = 20
NEUTRAL = {"speeds": [1.0], "noises": None, "snr": [5, 20], "rooms": None, "share": 0.5}


def seconds_of(function: Callable, device: torch.device) -> float:
    """The time of the fastest of four runs, the first of which warms up."""
    clock, took = time.process_time if device.type == "cpu" else time.perf_counter, []
    for _ in range(4):
        start = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(clock() - start)
    return min(took)


def recordings(work: Path) -> dict[str, str]:
    """Folders of 20 noises of 10 s and 20 rooms of half a second."""
    random = np.random.default_rng(0)
    for kind, size in (("noises", 160_000), ("rooms", 8000)):
        (work / kind).mkdir()
        for number in range(20):
            samples = random.normal(0, 0.1, size) * (np.exp(-np.arange(size) / 1500) if kind == "rooms" else 1)
            soundfile.write(work / kind / f"{number}.wav", samples, 16000)
    return {kind: str(work / kind) for kind in ("noises", "rooms")}


def rival(work: Path, data: archive.Frames, plan: list[list[int]], device: torch.device) -> Callable:
    """SpeechBrain's batches by the same plan."""
    from speechbrain.augment.time_domain import AddNoise, AddReverb, SpeedPerturb
    from speechbrain.lobes.features import Fbank

    for kind in ("noises", "rooms"):
        with open(work / f"{kind}.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["ID", "duration", "wav", "wav_format", "wav_opts"])
            for path in sorted((work / kind).glob("*.wav")):
                rows.writerow([path.stem, soundfile.info(path).duration, path, "wav", ""])
    speed = SpeedPerturb(16000, [90, 100, 110])
    reverberate, add_noise = (
        AddReverb(str(work / "rooms.csv")),
        AddNoise(str(work / "noises.csv"), snr_low=5, snr_high=20),
    )
    fbank = Fbank(n_mels=80).to(device)

    def batches() -> None:
        with torch.no_grad():
            for step, indices in enumerate(plan):
                parts = [data.frames[data.offsets[i] :][: data.lengths[i], 0] for i in indices]
                lengths = (data.lengths[indices] / data.lengths[indices].max()).to(device)
                waves = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).float() / 32768
                waves = speed(waves)
                if step % 2:
                    waves = reverberate(waves)
                if step // 2 % 2:
                    waves = add_noise(waves, lengths)
                fbank(waves)

    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("HOURGLASS_DATA", ".") + "/LibriSpeech")
    parser.add_argument("--split", default="train-clean-5")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--utterances", default=300, type=int)
    parser.add_argument("--batch-seconds", default=100, type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="augmentation-"))
    prepare(f"{arguments.root}/{arguments.split}", work / "data/train")
    utterances = manifest.read(work / "data/train")[: arguments.utterances]
    directory, ids = work / "features/train", [u.id for u in utterances]
    extract_shard(EXTRACTOR, False, False, "audio", utterances, archive.Writer(directory, directory, 0))
    archive.join(directory, 0.01)
    audio = Audio(directory, "utterance", make(EXTRACTOR))
    samples, frames = (
        data.map(lambda values: values.to(arguments.device))
        for data in (audio.read(ids), archive.read(directory, "utterance", ids))
    )
    size = 100 * arguments.batch_seconds
    everything = {"speeds": [0.9, 1.0, 1.1]} | recordings(work)
    plain = Batcher(frames, size, seed=0)
    plan = plain.plan(0)[:STEPS]
    seconds = sum(float(samples.lengths[i]) for indices in plan for i in indices) / 16000
    makers = {
        "stored frames": plain,
        "audio, unchanged": AudioBatcher(samples, size, 0, None, None, audio, NEUTRAL),
        "audio, speed, rooms, noise": AudioBatcher(
            samples, size, 0, None, [[1]] * len(ids), audio, NEUTRAL | everything
        ),
    }
    took = {}
    for name, maker in makers.items():
        took[name] = seconds_of(lambda maker=maker: [maker.at(step) for step in range(len(plan))], arguments.device)
    took["SpeechBrain's classes"] = seconds_of(rival(work, samples, plan, arguments.device), arguments.device)
    for name, each in took.items():
        print(f"{name:26} {seconds / each:8.0f} x real time")
    _, _, ours, theirs = took.values()
    print(f"with all three {theirs / ours:.2f} times as fast as SpeechBrain's classes")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
