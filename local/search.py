"""What decoders share, and how they are spread over processes and tuned.

A decoder is a `Search`: built from the settings of conf/decoder, it makes of one utterance's log-probabilities its most
probable texts. What it leaves open are its `choices`, lists of values by name, of which `tune` finds the best.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch

from local.config import make_of
from local.edits import count_words
from local.workers import end_with_parent

HANDED = 8  # utterances that a process takes at once
OTHERS = ("name", "splits", "nbest", "posteriors")  # settings of the stage, and not of the decoder's class


class Hypothesis(NamedTuple):
    """A text and the natural logarithm of what it scores."""

    score: float
    text: str


class Search:
    """A decoder of one utterance at a time."""

    choices: dict[str, list[float]] = {}  # until `use` is called, the first of each is used
    slow = True  # whether it is worth processes of its own

    @classmethod
    def check(cls, units: str | list[str]) -> None:
        """Raise InputError for units that it cannot search."""

    def use(self, **setting: float) -> None:
        """Search with these values of `choices` from now on."""

    def search(self, frames: np.ndarray, count: int) -> list[Hypothesis]:
        """One utterance's log-probabilities [T, 1 + units], float32, to at most `count` hypotheses, the best first."""
        raise NotImplementedError

    def __call__(self, log_probabilities: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """[B, T, 1 + units] log-probabilities with lengths [B] to B texts."""
        frames = log_probabilities.detach().float().cpu().numpy()
        return [self.search(each[:size], 1)[0].text for each, size in zip(frames, lengths.tolist(), strict=True)]


def build(settings: dict, units: str | list[str]) -> Search:
    """The decoder of a run's settings `decoder`."""
    taken = {key: value for key, value in settings.items() if key not in OTHERS and value is not None}
    return make_of("local.decoders", taken, units=units)


class Processes:
    """A decoder that `workers` processes have a copy of each, made once; the order of utterances stays.

    With one worker, or if the decoder is not slow, it is used in this process.
    """

    def __init__(self, settings: dict, units: str | list[str], workers: int) -> None:
        self.decoder, self.pool = build(settings, units), None
        if workers > 1 and self.decoder.slow:
            context = get_context("forkserver")
            context.set_forkserver_preload(["local.search"])
            self.pool = ProcessPoolExecutor(workers, context, _begin, (settings, units))

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def search(self, frames: list[np.ndarray], count: int, setting: dict[str, float]) -> list[list[Hypothesis]]:
        """The hypotheses of each utterance, with these values of the decoder's choices."""
        arguments = frames, repeat(count), repeat(setting)
        if self.pool:
            return list(self.pool.map(_search, *arguments, chunksize=HANDED))
        self.decoder.use(**setting)
        return [self.decoder.search(each, count) for each in frames]


def _begin(settings: dict, units: str | list[str]) -> None:
    global _decoder
    end_with_parent()
    torch.set_num_threads(1)  # there are processes enough
    _decoder = build(settings, units)


def _search(frames: np.ndarray, count: int, setting: dict[str, float]) -> list[Hypothesis]:
    _decoder.use(**setting)
    return _decoder.search(frames, count)


def tune(
    texts: Callable[[dict[str, float]], list[str]], references: list[str], choices: dict[str, list[float]]
) -> list[dict]:
    """Trials of settings and their word error rates in percent, the best first: of several, the one tried first.

    The values of the first choice are tried with the first value of the others, then, with the best of that, the values
    of the next. `texts` gives the hypotheses that a setting finds.
    """
    trials: list[dict] = []
    setting = {name: values[0] for name, values in choices.items()}
    for name, values in choices.items():
        for value in values:
            trial = setting | {name: value}
            if all(trial.items() - tried.items() for tried in trials):
                trials.append(trial | {"wer": count_words(references, texts(trial)).rate})
        trials.sort(key=lambda tried: tried["wer"])
        setting = {name: trials[0][name] for name in choices}
    return trials
