"""From audio to frames, in shards that do not depend on the number of workers."""

from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track

from local import audio, manifest
from local.archive import Writer, join
from local.config import make
from local.errors import InputError

SHARD = 200  # utterances
BATCH = 16  # utterances of similar order in one call of the extractor


class Fbank:
    """Log-mel filterbanks in dB, SpeechBrain's: [N] samples to [1 + N // hop, n_mels] frames, windows centered.

    `win_length` and `hop_length` in milliseconds.
    """

    def __init__(self, sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> None:
        self.settings = {
            "sample_rate": sample_rate, "n_mels": n_mels, "win_length": win_length, "hop_length": hop_length
        }  # fmt: skip
        self.sample_rate = sample_rate
        self.hop = sample_rate * hop_length // 1000
        self.frame_shift = hop_length / 1000

    @cached_property
    def fbank(self):
        """SpeechBrain's module; imported late, for that takes seconds."""
        from speechbrain.lobes.features import Fbank as SpeechBrainFbank

        return SpeechBrainFbank(**self.settings)

    def __call__(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        """Frames of each waveform, as if each were alone: the padding is zeros, as at an utterance's own end."""
        import torch

        padded = torch.zeros(len(batch), max(len(samples) for samples in batch))
        for row, samples in zip(padded, batch, strict=True):
            row[: len(samples)] = torch.from_numpy(samples)
        with torch.inference_mode():
            frames = self.fbank(padded).numpy()
        return [f[: 1 + len(samples) // self.hop] for f, samples in zip(frames, batch, strict=True)]


def extract_shard(extractor: dict, utterances: list[manifest.Utterance], writer: Writer) -> list[str]:
    """Write one shard's archive; return a line for each file that holds no speech."""
    extract, errors = make(extractor), []
    with writer:
        for start in range(0, len(utterances), BATCH):
            batch = {}
            for utterance in utterances[start : start + BATCH]:
                try:
                    batch[utterance.id] = audio.read(audio.path_of(utterance.audio), extract.sample_rate)
                except InputError as error:
                    errors.append(str(error))
            if batch:
                for key, frames in zip(batch, extract(list(batch.values())), strict=True):
                    writer.write(key, frames)
    return errors


def extract(data: Path, splits: list[str], extractor: dict, partial: Path, final: Path, workers: int) -> None:
    """Compute the archives of `splits` into `partial`, with `final` in their scp files.

    Raises InputError with a line for each bad file.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["speechbrain.lobes.features"])
    errors = []
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for split in splits:
            utterances = manifest.read(data / split)
            shards = [utterances[i : i + SHARD] for i in range(0, len(utterances), SHARD)]
            jobs = [
                pool.submit(extract_shard, extractor, shard, Writer(partial / split, final / split, number))
                for number, shard in enumerate(shards)
            ]
            for job in track(jobs, f"features of {split}"):
                errors += job.result()
            join(partial / split, make(extractor).frame_shift, {u.id: u.speaker for u in utterances})
    if errors:
        raise InputError("\n".join(errors))
