"""A CTC recipe as SpeechBrain's own are written: its data pipeline, models, schedule and checkpoints.

Read from audio files for every batch: sorted or bucketed by its samplers, padded by its collation, Fbank and global
normalization on the fly, SpectrogramDrop for SpecAugment, CTC over its text encoder, best path. `crdnn` follows its
recipes with that model (recipes/TIMIT/ASR/CTC, recipes/LibriSpeech/ASR/seq2seq: two blocks of two-dimensional
convolutions, time pooled by four, recurrent and linear layers), with fewer channels and units, for a CPU; `strided` its
Conformer recipes' front end of strided convolutions, on LSTMs instead of attention, which a CPU is faster with.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.augment.freq_domain import SpectrogramDrop
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.RNN import LSTM
from speechbrain.processing.features import InputNormalization
from torch import nn

from local.edits import Counts, count_characters, count_words
from local.manifest import Utterance

MELS = 80
OPTIMIZERS = {  # of its CRDNN recipes and of its Conformer recipes, whose rate is for larger batches
    "adadelta": partial(torch.optim.Adadelta, lr=1.0, rho=0.95, eps=1e-8),
    "adam": partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.98), eps=1e-9),
}


def text_encoder(units: str) -> CTCTextEncoder:
    """Blank at 0, then the units."""
    encoder = CTCTextEncoder()
    encoder.insert_blank(index=0)
    encoder.update_from_iterable(units, sequence_input=False)
    encoder.expect_len(1 + len(units))
    return encoder


def dataset(utterances: list[Utterance], encoder: CTCTextEncoder, path: Path) -> DynamicItemDataset:
    """Utterances by way of a JSON manifest at `path`."""
    rows = {u.id: {"wav": u.audio, "duration": u.duration, "words": u.text} for u in utterances}
    path.write_text(json.dumps(rows), encoding="utf-8")
    data = DynamicItemDataset.from_json(str(path))
    data.add_dynamic_item(read_audio, takes="wav", provides="signal")
    data.add_dynamic_item(
        lambda words: torch.LongTensor(encoder.encode_sequence(list(words))), takes="words", provides="tokens"
    )
    data.set_output_keys(["id", "signal", "tokens", "words", "duration"])
    return data


class Shuffled(DynamicBatchSampler):
    """In another order in each pass, which a LoopedLoader does not ask for."""

    passes = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of one pass."""
        self.passes += 1
        self.set_epoch(self.passes)
        return super().__iter__()


def batching(data: DynamicItemDataset, kind: str, batch_seconds: float, seed: int) -> tuple[DynamicItemDataset, dict]:
    """The data and the loader's settings.

    8 at a time in order of duration (`sorted`) or in any order (`random`); `dynamic`: of like durations, shuffled.
    """
    if kind == "random":
        return data, {"batch_size": 8, "shuffle": True}
    if kind == "sorted":
        return data.filtered_sorted(sort_key="duration"), {"batch_size": 8}
    with data.output_keys_as(["duration"]):
        seconds = [row["duration"] for row in data]
    sampler = Shuffled(
        data, max_batch_length=batch_seconds, num_buckets=30, lengths_list=seconds, shuffle=True, seed=seed
    )
    return data, {"batch_sampler": sampler}


class Strided(nn.Module):
    """Time and frequency strided by four, a projection and LSTM layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.front = ConvolutionFrontEnd(
            (None, None, MELS), num_blocks=2, num_layers_per_block=1, out_channels=(32, 16), kernel_sizes=(3, 3),
            strides=(2, 2), residuals=(False, False),
        )  # fmt: skip
        self.project = nn.Sequential(nn.Linear(16 * MELS // 4, width), nn.Dropout(0.15))
        self.layers = LSTM(width, input_size=width, num_layers=2, bidirectional=True, dropout=0.15)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, T, MELS] to [B, T / 4, 2 * width]."""
        return self.layers(self.project(self.front(features).flatten(2)))[0]


def crdnn(width: int) -> nn.Module:
    """[B, T, MELS] to [B, T / 4, width]."""
    return CRDNN(
        input_size=MELS, cnn_blocks=2, cnn_channels=[16, 32], time_pooling=True, time_pooling_size=4,
        projection_dim=width, rnn_class=LSTM, rnn_layers=2, rnn_neurons=width, dnn_blocks=1, dnn_neurons=width,
    )  # fmt: skip


MODELS = {"crdnn": (crdnn, 1), "strided": (Strided, 2)}  # a model of some width, and its output relative to that


class Recipe(sb.Brain):
    """Trains until `budget` seconds of `clock` went into training, which validation does not count towards."""

    def prepare(self, encoder: CTCTextEncoder, clock: Callable, budget: float, best: str) -> "Recipe":
        """Settings beside a Brain's own."""
        self.encoder, self.clock, self.left, self.best = encoder, clock, budget, best
        self.updates, self.heard, self.spent = 0, 0.0, 0.0
        self.annealing = sb.nnet.schedulers.NewBobScheduler(
            initial_value=self.opt_class.keywords["lr"], annealing_factor=0.8, improvement_threshold=0.0025
        )
        self.drop = nn.ModuleList([
            SpectrogramDrop(15, 25, 5, 5, dim=1),
            SpectrogramDrop(1, 16, 1, 1, dim=2),
        ])  # fmt: skip
        return self

    def compute_forward(self, batch, stage) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [B, T, units] and relative lengths [B]."""
        batch = batch.to(self.device)
        signals, lengths = batch.signal
        with torch.no_grad():
            features = self.modules.normalize(self.modules.fbank(signals), lengths, epoch=self.epoch)
            if stage == sb.Stage.TRAIN:
                for drop in self.drop:
                    features = drop(features)
        return self.modules.output(self.modules.model(features)).log_softmax(2), lengths

    def compute_objectives(self, predictions, batch, stage) -> torch.Tensor:
        """CTC loss; errors of best paths are counted but in training."""
        log_probabilities, lengths = predictions
        loss = sb.nnet.losses.ctc_loss(log_probabilities, batch.tokens.data, lengths, batch.tokens.lengths, 0)
        if stage != sb.Stage.TRAIN:
            best = ctc_greedy_decode(log_probabilities, lengths, blank_id=0)
            for key, labels in zip(batch.id, best, strict=True):
                self.hypotheses[key] = " ".join("".join(self.encoder.decode_ndim(labels)).split())
            hypotheses = [self.hypotheses[key] for key in batch.id]
            self.words += count_words(batch.words, hypotheses)
            self.characters = sum(map(count_characters, batch.words, hypotheses), self.characters)
        return loss

    def on_stage_start(self, stage, epoch=None) -> None:
        """Start the clock, or the counts."""
        self.epoch = epoch or 0
        self.hypotheses, self.words, self.characters = {}, Counts(), Counts()
        self.start = self.clock()

    def on_fit_batch_end(self, batch, outputs, loss, should_step) -> None:
        """Stop where the time is up."""
        self.updates += 1
        self.heard += float(batch.duration.sum())
        if self.clock() - self.start >= self.left:
            self.optimizer_step_limit = self.optimizer_step

    def on_stage_end(self, stage, stage_loss, epoch=None) -> None:
        """After validation, NewBob and the checkpoint, as the recipes have it."""
        if stage == sb.Stage.TRAIN:
            took = self.clock() - self.start
            self.left, self.spent = self.left - took, self.spent + took
        if stage == sb.Stage.VALID:
            wer, cer = self.words.rate, self.characters.rate
            rate = self.optimizer.param_groups[0]["lr"]
            if wer < 100:  # or the plateau of blanks at the beginning would count as no improvement
                _, rate = self.annealing(wer)
                sb.nnet.schedulers.update_learning_rate(self.optimizer, rate)
            errors = f"WER {wer:.2f}, CER {cer:.2f}"
            print(f"rival: {self.spent:.0f} s, {self.updates} updates, loss {stage_loss:.3f}, {errors}, {rate:.2g}")
            found = {"WER": wer, "CER": cer}
            self.checkpointer.save_and_keep_only(meta=found, min_keys=[self.best])

    def epochs(self) -> Iterator[int]:
        """Numbers from 1 while time is left."""
        epoch = 0
        while self.left > 0:
            epoch += 1
            yield epoch


def recipe(
    model: str, width: int, optimizer: partial, encoder: CTCTextEncoder, out: Path, device: str, budget: float,
    clock: Callable = time.perf_counter, best: str = "WER",
) -> Recipe:  # fmt: skip
    """An untrained recipe that keeps in `out` its checkpoint of the lowest WER or CER on dev."""
    make, times = MODELS[model]
    modules = {
        "fbank": Fbank(n_mels=MELS), "normalize": InputNormalization(norm_type="global", update_until_epoch=4),
        "model": make(width), "output": nn.Linear(times * width, len(encoder)),
    }  # fmt: skip
    checkpointer = sb.utils.checkpoints.Checkpointer(out, recoverables={**modules})
    brain = Recipe(modules, optimizer, run_opts={"device": device}, checkpointer=checkpointer)
    return brain.prepare(encoder, clock, budget, best)


def train(brain: Recipe, data: DynamicItemDataset, loading: dict, dev: DynamicItemDataset, every: int) -> dict:
    """Train with a validation after `every` updates; the hypotheses for dev of the checkpoint best there."""
    train_loader = LoopedLoader(brain.make_dataloader(data, sb.Stage.TRAIN, **loading), every)
    dev = dev.filtered_sorted(sort_key="duration")
    brain.fit(brain.epochs(), train_loader, dev, progressbar=False, valid_loader_kwargs={"batch_size": 16})
    brain.evaluate(dev, min_key=brain.best, progressbar=False, test_loader_kwargs={"batch_size": 16})
    return brain.hypotheses
