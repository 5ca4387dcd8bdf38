"""How often the 95 % intervals of local/significance.py hold the truth, and its 5 % tests reject wrongly.

    python -m tests.bench.coverage [--trials 4000]

A trial is an experiment: 72 speakers with their own number of utterances and level of difficulty, two arms on
the same speakers, errors of each decoding drawn per utterance, seeds that make a whole decoding better or worse.
`seed noise` is the standard deviation of a seed's rate, in multiples of the sampling error: the standard
deviation of the measured difference when nothing but speakers and decodings vary. With noise 0, seeds still
differ, for each decodes with its own errors. `arms differ by speaker` is the spread of the arms' true
difference from one speaker to the next; with none, all the sampling error is decoding noise, the hardest case for
keeping intervals narrow. The truth of an interval of one arm is its rate over all speakers there could be.
"""

import argparse
from typing import NamedTuple

import numpy as np

from local.significance import bootstrap, compare, interval, resample

SPEAKERS = 72
WER = 0.15  # of the average speaker, in every arm
SPEAKER_SPREAD = 0.4  # standard deviation of a speaker's rate, relative to WER
DISPERSION = 2.0  # variance of an utterance's errors over its mean: errors come in runs


class Setting(NamedTuple):
    seeds: tuple[int, int]  # of the two arms
    noise: tuple[float, float]  # of the two arms' seeds, in sampling errors
    by_speaker: float  # relative spread of the arms' difference over speakers


SETTINGS = [
    Setting((seeds, seeds), (noise, noise), by_speaker)
    for seeds in (3, 5)
    for by_speaker in (0.15, 0.0)
    for noise in (0, 1, 3)
] + [Setting((3, 3), (0, 3), 0.15), Setting((5, 3), (1, 3), 0.15)]


def speakers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Words per utterance [K, U], zero where a speaker has fewer than U, and relative difficulty [K]."""
    words = rng.integers(4, 31, (SPEAKERS, 40))
    words[np.arange(40) >= rng.integers(15, 41, SPEAKERS)[:, None]] = 0
    return words, rng.gamma(1 / SPEAKER_SPREAD**2, SPEAKER_SPREAD**2, SPEAKERS)


def decode(rng: np.random.Generator, words: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Errors [S, K] of S decodings with rates [S, K]: negative binomial per utterance, summed."""
    shape = words * rates[..., None] / (DISPERSION - 1)  # [S, K, U]
    return rng.negative_binomial(np.maximum(shape, 1e-12), 1 / DISPERSION).sum(-1)


def experiment(
    rng: np.random.Generator, setting: Setting, sampling: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors [S, K] of two arms with the same true rate, and words [K]."""
    words, difficulty = speakers(rng)
    arms = []
    for seeds, noise in zip(setting.seeds, setting.noise, strict=True):
        own = 1 + setting.by_speaker / np.sqrt(2) * rng.standard_normal(SPEAKERS)
        shift = noise * sampling / WER * rng.standard_normal((seeds, 1))
        arms.append(decode(rng, words, WER * difficulty * np.maximum(own + shift, 0.05)))
    return arms[0], arms[1], words.sum(1)


def sampling_error(setting: Setting, trials: int = 300) -> float:
    """Standard deviation of the difference of two arms whose seeds bring no noise, as a share of words."""
    rng = np.random.default_rng(0)
    quiet = setting._replace(noise=(0, 0))
    trial = (experiment(rng, quiet, 0.0) for _ in range(trials))
    return float(np.std([(b.mean(0) - a.mean(0)).sum() / words.sum() for a, b, words in trial]))


def measure(setting: Setting, trials: int, draws: int = 0) -> dict[str, float]:
    """Shares in percent: intervals of the difference and of one arm that hold the truth, tests that reject.

    With `draws`, the percentile bootstrap's intervals of the difference too.
    """
    sampling = sampling_error(setting)
    rng = np.random.default_rng(1)
    hits = {"difference": 0, "reject": 0, "arm": 0} | ({"bootstrap": 0} if draws else {})
    for trial in range(trials):
        a, b, words = experiment(rng, setting, sampling)
        found, arm = compare(a, b, words), interval(b, words)
        hits["difference"] += found.low <= 0 <= found.high
        hits["reject"] += found.p < 0.05
        hits["arm"] += arm.low <= 100 * WER <= arm.high
        if draws:
            low, high = bootstrap(*(resample(arm, words, trial, draws) for arm in (a, b)), trial)
            hits["bootstrap"] += low <= 0 <= high
    return {name: 100 * hit / trials for name, hit in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000, help="experiments a line (default: %(default)s)")
    trials = parser.parse_args().trials
    print(f"{trials} trials a line; standard error {100 * (0.05 * 0.95 / trials) ** 0.5:.1f} points")
    print("seeds  seed noise  by speaker  difference %  rejected %  one arm %  bootstrap %")
    for setting in SETTINGS:
        found = measure(setting, trials, draws=500)
        seeds, noise = ("/".join(f"{x:g}" for x in pair) for pair in (setting.seeds, setting.noise))
        shares = "  ".join(
            f"{found[name]:{width}.1f}"
            for name, width in (("difference", 12), ("reject", 10), ("arm", 9), ("bootstrap", 11))
        )
        print(f"{seeds:5}  {noise:>10}  {setting.by_speaker:10g}  {shares}", flush=True)


if __name__ == "__main__":
    main()
