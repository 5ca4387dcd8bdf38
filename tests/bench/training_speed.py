"""Training as we do it against SpeechBrain's loop: on identical batches, and recipe against recipe.

    python -m tests.bench.training_speed [--root $HOURGLASS_DATA/LibriSpeech] [--utterances 400] [--updates 20]
        [--precision bf16]

The same recognizer (arm `none` of recipe mini_librispeech), optimizer and SpecAugment everywhere, in one thread:

- our loop: lightning_modules.fit, batches cut from the archive in memory, a checkpoint at the end; once with batches of
  as many seconds as 8 utterances have, for larger ones are faster;
- SpeechBrain's loop: Brain.fit over the very same batches, cut in the same way, without a checkpoint;
- its recipe: Brain.fit over its own pipeline, audio files, Fbank and global normalization on the fly, padded by its
  collation, 8 utterances in random order (`random`), in order of duration (`sorted`), or about as many seconds a batch
  as ours from its buckets (`dynamic`).

Each runs several times by turns, the best counts. On the CPU counted is CPU time, which on a shared machine means the
same as on an idle one, and which the rival's loading would share among two processes, and not lessen.
"""

import argparse
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization
from torch.utils.data import DataLoader, IterableDataset

from lightning_modules import checkpoint
from lightning_modules.batch import Batch, Batcher
from lightning_modules.fit import batcher, fit, place
from lightning_modules.training import Training
from local import archive
from local.config import plain
from local.corpora.librispeech import LibriSpeech
from local.features import extract_shard
from local.manifest import Utterance
from local.text import encode_all
from tests.bench.rival import clock, configuration
from tests.bench.speechbrain_recipe import batching, dataset, text_encoder

ROUNDS = 3
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # ours, by SpeechBrain's name


class Loop(sb.Brain):
    """SpeechBrain's loop around our recognizer; `heard` counts the seconds of audio."""

    heard = 0.0

    def compute_forward(self, batch: Batch, stage) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and lengths."""
        self.heard += 0.01 * float(batch.lengths.sum())
        return self.modules.recognizer(self.modules.recognizer.augment(batch.features), batch.lengths)

    def compute_objectives(self, predictions, batch: Batch, stage) -> torch.Tensor:
        """The recognizer's own loss."""
        return self.modules.recognizer.ctc(*predictions, batch)


class OwnData(Loop):
    """The same, from SpeechBrain's batches of audio."""

    def compute_forward(self, batch, stage) -> tuple[torch.Tensor, torch.Tensor]:
        """Features first."""
        return super().compute_forward(self.featured(batch.to(self.device)), stage)

    def compute_objectives(self, predictions, batch, stage) -> torch.Tensor:
        """The recognizer's own loss, of the batch that `compute_forward` made."""
        return super().compute_objectives(predictions, self.batch, stage)

    def featured(self, batch) -> Batch:
        """Filterbanks [B, T, 80], normalized, and labels."""
        signals, relative = batch.signal
        with torch.no_grad():
            features = self.modules.normalize(self.modules.fbank(signals), relative)
        lengths = (relative * features.shape[1]).round().long()
        labels, sizes = batch.tokens
        self.batch = Batch(batch.id, features, lengths, labels, (sizes * labels.shape[1]).round().long())
        return self.batch


def recognizer(cfg, updates: int, units: str, **more) -> Training:
    """Untrained."""
    settings = plain(cfg, "recognizer") | {
        "input_dim": 80, "input_stride": 1, "units": units, "scoring": {}, "seed": 1, "autoencoder": None,
        "updates": updates, "check_every": updates,
    }  # fmt: skip
    return checkpoint.build(settings | more)


def brain(kind: type[Loop], module: Training, device: str, precision: str) -> Loop:
    """Around a recognizer, with its optimizer."""
    modules = {"recognizer": module, "fbank": Fbank(n_mels=80), "normalize": InputNormalization(norm_type="global")}
    rate = module.learning_rate
    options = {"device": device, "precision": precision}
    return kind(modules, lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01), None, options)


def drawn(root: str, number: int) -> list[Utterance]:
    """Utterances of train-clean-5."""
    corpus = LibriSpeech("", root, download_to="", mirror="", sample_rate=16000, splits={"train": ["train-clean-5"]})
    found = list(corpus.utterances("train"))
    return sorted(random.Random(0).sample(found, number), key=lambda u: u.id)


def archived(cfg, utterances: list[Utterance], work: Path) -> archive.Frames:
    """Their features, as stage 2 stores and stage 5 reads them."""
    directory = work / "features/train"
    extractor = plain(cfg, "features")["extractor"]
    extract_shard(extractor, False, False, "frames", utterances, archive.Writer(directory, directory, 0))
    archive.join(directory, 0.01)
    return archive.read(directory, cfg.features.cmvn, [u.id for u in utterances])


def measured(run: Callable[[], float], now: Callable[[], float]) -> float:
    """Seconds of audio a second of a run, which returns the audio's."""
    start = now()
    heard = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return heard / (now() - start)


class Cut(IterableDataset):
    """The first batches of a batcher."""

    def __init__(self, batches: Batcher, updates: int) -> None:
        self.batches, self.updates = batches, updates

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches.at(step) for step in range(self.updates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.environ.get("HOURGLASS_DATA", ".") + "/LibriSpeech", type=os.path.abspath)
    parser.add_argument("--utterances", default=400, type=int, help="drawn at random")
    parser.add_argument("--updates", default=20, type=int)
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of both, by SpeechBrain's name")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cfg = configuration("arm=none")
    work = Path(tempfile.mkdtemp(prefix="training-"))
    spoken = drawn(arguments.root, arguments.utterances)
    units = plain(cfg, "units")["inventory"]
    data = place(archived(cfg, spoken, work), "auto" if arguments.device == "cuda" else "cpu")
    labels = encode_all(spoken, units, {})

    def module(**more) -> Training:
        return recognizer(cfg, arguments.updates, units, precision=PRECISIONS[arguments.precision], **more)

    dev = Batcher(data.select([0]), 10**6, 0, labels=labels[:1])
    small = cfg.recognizer.batch_seconds
    large = round(8 * float(data.lengths.float().mean()) * data.frame_shift)
    cuts = {size: batcher(module(batch_seconds=size), data, labels, crop=False) for size in (small, large)}
    heard = {
        size: 0.01 * sum(float(cut.at(step).lengths.sum()) for step in range(arguments.updates))
        for size, cut in cuts.items()
    }

    def ours(size: int) -> float:
        trainer = {"accelerator": "gpu" if arguments.device == "cuda" else "cpu"}
        out = Path(tempfile.mkdtemp(dir=work))
        fit(module(batch_seconds=size), cuts[size], dev, out, "training_speed", None, trainer)
        return heard[size]

    def loop() -> float:
        rival = brain(Loop, module(), arguments.device, arguments.precision)
        rival.fit([1], DataLoader(Cut(cuts[small], arguments.updates), batch_size=None), progressbar=False)
        return rival.heard

    def its_recipe(kind: str) -> float:
        rival = brain(OwnData, module(), arguments.device, arguments.precision)
        heap = dataset(spoken, text_encoder(units), work / "train.json")
        heap, loading = batching(heap, kind, cfg.recognizer.batch_seconds, seed=0)
        loader = rival.make_dataloader(heap, sb.Stage.TRAIN, **loading)
        rival.fit([1], LoopedLoader(loader, arguments.updates), progressbar=False)
        return rival.heard

    theirs = {f"its recipe, {kind}": (partial(its_recipe, kind), large) for kind in ("random", "sorted")}
    theirs |= {"its recipe, dynamic": (partial(its_recipe, "dynamic"), small), "its loop": (loop, small)}
    runs = {size: partial(ours, size) for size in cuts} | {name: run for name, (run, _) in theirs.items()}
    rates = dict.fromkeys(runs, 0.0)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            rates[name] = max(rates[name], measured(run, clock(arguments.device)))
    for size in cuts:
        print(f"ours, {size} s a batch  {rates[size]:7.1f} s of audio a second")
    for name, (_, size) in theirs.items():
        ratio = rates[size] / rates[name]
        print(f"{name:20} {rates[name]:7.1f} s of audio a second; ours, {size} s a batch, {ratio:.2f} times as fast")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
