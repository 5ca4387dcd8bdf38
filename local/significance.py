"""How sure a word error rate, or the difference of two, is.

Shapes: S seeds of an arm, K speakers; `errors` [S, K] and `words` [K] are counts. Rates and their intervals are
in percent, differences in percentage points, arm minus baseline.

A word error rate is a ratio, so every speaker enters through its influence on it, (errors - wer * words) /
total words. Seeds are nested in their arm; the speakers are those of one test set and shared by all arms. With
the mean squares of a two-way layout, the variance of a difference of two arms is

    speakers + (seeds - interaction)

where `speakers` is the variance of the speakers' mean difference over seeds, which already holds the seed x
speaker interaction (each decoding's own noise) once, and `seeds` holds it again: hence the subtraction, summed
over both arms. The bracket is floored, for a negative seed variance is noise, and once over both arms: a floor
for each would keep that noise twice as often. Degrees of freedom are Satterthwaite's, of the sum of mean
squares (F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 2, 1946). tests/bench/coverage.py measures how often these intervals hold the truth: 94 to
97 % where both arms have three or more seeds and like seed noise, 93 % in the worst of unlike ones.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL = 0.95  # of every interval
MIN_SEEDS = 3  # an arm with fewer says nothing about its seeds
# Satterthwaite's degrees of freedom are too many where three seeds bring most of the variance and show little of
# it by chance: 95 % intervals of one arm then covered 92 to 93 %. With half as much again for the seeds, 94 %.
CAUTION = 1.5
# A floor of exactly zero keeps only the noise that widens: where seeds bring nothing, 95 % intervals covered over
# 97 %. A bracket may take this share off the speakers' variance: 0.3 % less there, and no more than that elsewhere.
SLACK = 0.05
BLOCK = 500  # test sets drawn at once, for the sake of memory where speakers are many
NO_SPREAD = 1e-9  # a standard error, as a share of words, that can only be rounding


class Interval(NamedTuple):
    """A rate in percent and its bounds; None where nothing varies, or only one speaker speaks."""

    wer: float
    low: float | None
    high: float | None


class Comparison(NamedTuple):
    """Arm minus baseline in points; `relative` in percent of the baseline's rate; `p` is two-sided.

    `detectable` is the half width of the interval: a smaller difference could not have been shown. None stands
    for what the data cannot say: any spread of a single speaker; `p`, `df` and, for want of a test, `detectable` of
    fewer than three seeds.
    """

    delta: float
    relative: float | None
    low: float | None
    high: float | None
    p: float | None
    df: float | None
    detectable: float | None


class _Arm(NamedTuple):
    """One arm's share of the variance of a rate; all as shares of words, not percent."""

    wer: float
    influence: np.ndarray  # [K], sums to zero: each speaker's pull on the rate, averaged over seeds
    seeds: float  # mean square of the seeds, as a variance of their mean
    interaction: float  # mean square of seed x speaker, likewise
    seed_df: int  # S - 1, or 0 with too few seeds to use them


def _decompose(errors: np.ndarray, words: np.ndarray) -> _Arm:
    errors, words = np.asarray(errors, float), np.asarray(words, float)
    seeds, speakers = errors.shape
    total = words.sum()
    rates = errors.sum(1) / total
    influence = (errors.mean(0) - rates.mean() * words) / total
    if seeds < MIN_SEEDS or speakers < 2:
        return _Arm(rates.mean(), influence, 0.0, 0.0, 0)
    # Around each seed's own rate: a seed that is worse everywhere must not look like an interaction.
    rest = (errors - rates[:, None] * words) / total - influence
    interaction = (rest**2).sum() * speakers / (speakers - 1) / (seeds - 1) / seeds
    return _Arm(rates.mean(), influence, rates.var(ddof=1) / seeds, interaction, seeds - 1)


def _spread(influence: np.ndarray, arms: list[_Arm]) -> tuple[float, float] | None:
    """Variance and degrees of freedom of a rate or difference, or None where neither is defined."""
    speaker_df = len(influence) - 1
    if speaker_df < 1:
        return None
    speakers = (influence**2).sum() * (speaker_df + 1) / speaker_df
    extra, doubt, seed_df = 0.0, 0.0, np.inf
    if all(arm.seed_df for arm in arms):
        extra = max(-SLACK * speakers, sum(arm.seeds - arm.interaction for arm in arms))
    if extra > 0:
        squares = sum(arm.seeds**2 / arm.seed_df for arm in arms)
        seed_df = sum(arm.seeds for arm in arms) ** 2 / squares
        doubt = squares + sum(arm.interaction**2 / (arm.seed_df * speaker_df) for arm in arms)
    variance = speakers + extra
    if variance < NO_SPREAD**2:
        return None
    df = variance**2 / (speakers**2 / speaker_df + CAUTION * doubt)
    # Caution may not go below the degrees of freedom of the seeds alone.
    return variance, max(df, min(seed_df, speaker_df))


def _half_width(variance: float, df: float) -> float:
    return float(special.stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(variance))


def interval(errors: np.ndarray, words: np.ndarray) -> Interval:
    """The mean rate of an arm's seeds and its 95 % interval, in percent.

    `errors` [S, K], `words` [K] with at least one word. With fewer than three seeds the interval covers the
    choice of speakers only: it is about these seeds and no others.
    """
    arm = _decompose(errors, words)
    spread = _spread(arm.influence, [arm])
    if spread is None:
        return Interval(100 * float(arm.wer), None, None)
    half = _half_width(*spread)
    return Interval(*(100 * float(x) for x in (arm.wer, max(0.0, arm.wer - half), arm.wer + half)))


def compare(errors_baseline: np.ndarray, errors_arm: np.ndarray, words: np.ndarray) -> Comparison:
    """The difference of two arms on the same speakers, with its interval and Satterthwaite's t test.

    `errors_*` [S, K], S may differ; `words` [K] with at least one word. With fewer than three seeds in either
    arm, the interval covers the choice of speakers only ("this seed only") and there is no p.
    """
    baseline, arm = _decompose(errors_baseline, words), _decompose(errors_arm, words)
    delta = float(arm.wer - baseline.wer)
    relative = 100 * delta / float(baseline.wer) if baseline.wer else None
    spread = _spread(arm.influence - baseline.influence, [baseline, arm])
    if spread is None:
        return Comparison(100 * delta, relative, None, None, None, None, None)
    variance, df = spread
    half = _half_width(variance, df)
    low, high = 100 * (delta - half), 100 * (delta + half)
    if not (baseline.seed_df and arm.seed_df):
        return Comparison(100 * delta, relative, low, high, None, None, None)
    p = float(2 * special.stdtr(df, -abs(delta) / np.sqrt(variance)))
    return Comparison(100 * delta, relative, low, high, p, float(df), 100 * half)


def holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979); None passes through, uncounted."""
    order = sorted((i for i, p in enumerate(p_values) if p is not None), key=lambda i: p_values[i])
    adjusted: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted


def resample(errors: np.ndarray, words: np.ndarray, seed: int = 0, draws: int = 10_000) -> np.ndarray:
    """Rates in percent [R, draws] of R decodings on test sets of K speakers, drawn anew with replacement.

    `errors` [R, K], `words` [K]. A draw is the same test set for every decoding (M. Bisani and H. Ney, "Bootstrap
    estimates for confidence intervals in ASR performance evaluation", ICASSP 2004).
    """
    rng = np.random.default_rng(seed)
    counts, speakers = np.vstack([errors, words]).astype(float), len(words)
    sums = []
    for start in range(0, draws, BLOCK):
        block = min(BLOCK, draws - start)
        drawn = rng.integers(speakers, size=(block, speakers)) + speakers * np.arange(block)[:, None]
        times = np.bincount(drawn.ravel(), minlength=block * speakers).reshape(block, speakers)
        sums.append(counts @ times.T)
    errors, words = np.split(np.concatenate(sums, axis=1), [-1])
    return 100 * errors / np.maximum(words, 1)


def bootstrap(rates_baseline: np.ndarray, rates_arm: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of arm minus baseline in points, over whole speakers and, within each arm, seeds.

    `rates_*` [S, draws], S may differ, are those of `resample`. With few seeds it covers too little, so it stands
    beside the t interval and never in its place.
    """
    rng = np.random.default_rng((seed, 1))  # not the numbers that drew the speakers

    def drawn(rates: np.ndarray) -> np.ndarray:
        seeds, draws = rates.shape
        return (rates.T * rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)).sum(1) / seeds

    low, high = np.quantile(drawn(rates_arm) - drawn(rates_baseline), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
