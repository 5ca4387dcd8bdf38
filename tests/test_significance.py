"""Intervals and tests, against hand calculations, scipy, sctk and a small simulation."""

import json
import random
import re
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from local.matched_pairs import matched_pairs
from local.scoring import read_ops, write_scores
from local.significance import CAUTION, SLACK, bootstrap, compare, holm, interval, resample
from tests.bench.coverage import Setting, measure

WORDS = np.array([100, 100, 100])


def test_an_arms_interval_equals_the_hand_calculation():
    # Rates by seed 20, 24, 22 %: variance of their mean 4/3 points squared. Speakers 10 points off the mean to
    # either side: 2 * 10^2 / 2 / 3 = 100/3. No interaction at all.
    errors = np.array([[10, 20, 30], [14, 24, 34], [12, 22, 32]])
    seeds, speakers = 4 / 3, 100 / 3
    df = (seeds + speakers) ** 2 / (speakers**2 / 2 + CAUTION * seeds**2 / 2)
    half = stats.t.ppf(0.975, df) * (seeds + speakers) ** 0.5
    assert df > 2
    assert np.allclose(interval(errors, WORDS), (22.0, 22.0 - half if half < 22 else 0.0, 22.0 + half))


def test_a_bracket_below_zero_takes_off_no_more_than_the_slack():
    # Every seed has the same rate, 20 %, so the seeds' mean squares are zero and the interactions' are not.
    baseline = np.array([[18, 20, 22], [20, 22, 18], [22, 18, 20]])
    arm = np.array([[17, 21, 22], [20, 21, 19], [20, 19, 21]])
    found = compare(baseline, arm, WORDS)
    difference = arm.mean(0) - baseline.mean(0)  # points, as each speaker has 100 words
    speakers = difference.var(ddof=1) / 3
    assert np.isclose(found.delta, 0.0) and np.isclose(found.p, 1.0)
    df = max((1 - SLACK) ** 2 * 2, 2)
    assert np.isclose(found.detectable, stats.t.ppf(0.975, df) * ((1 - SLACK) * speakers) ** 0.5)


def mean_squares(rates: np.ndarray) -> tuple[float, float]:
    """Seeds' and interaction's mean squares of a two-way layout without replication, rates [S, K]."""
    (seeds, speakers), mean = rates.shape, rates.mean()
    by_seed, by_speaker = rates.mean(1), rates.mean(0)
    rest = sum((rates[s, k] - by_seed[s] - by_speaker[k] + mean) ** 2 for s in range(seeds) for k in range(speakers))
    return speakers * ((by_seed - mean) ** 2).sum() / (seeds - 1), rest / (seeds - 1) / (speakers - 1)


def test_with_equal_speakers_it_is_the_textbook_two_way_layout():
    rng = np.random.default_rng(1)
    speakers = 12
    arms = [rng.poisson(20 + np.linspace(0, 9, s)[:, None], (s, speakers)) for s in (3, 4)]
    found = compare(*arms, np.full(speakers, 100))
    shared = (arms[1].mean(0) - arms[0].mean(0)).var(ddof=1) / speakers
    variance, doubt, seeds, seed_doubt = shared, 0.0, 0.0, 0.0
    for errors in arms:
        count = len(errors) * speakers
        seed, rest = (square / count for square in mean_squares(errors))
        variance += seed - rest
        seeds, seed_doubt = seeds + seed, seed_doubt + seed**2 / (len(errors) - 1)
        doubt += seed**2 / (len(errors) - 1) + rest**2 / (len(errors) - 1) / (speakers - 1)
    df = variance**2 / (shared**2 / (speakers - 1) + CAUTION * doubt)
    df = max(df, seeds**2 / seed_doubt)
    assert variance > 1.5 * shared  # the bracket matters here
    assert np.isclose(found.df, df) and np.isclose(found.detectable, stats.t.ppf(0.975, df) * variance**0.5)
    assert np.isclose(found.p, 2 * stats.t.sf(abs(found.delta) / variance**0.5, df))


def test_with_one_seed_an_arm_it_is_the_paired_t_interval_and_has_no_p():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(20, (2, 1, 30))
    words = np.full(30, 100)
    found = compare(a, b, words)
    reference = stats.ttest_rel(b[0], a[0]).confidence_interval(0.95)
    assert np.allclose((found.low, found.high), (reference.low, reference.high))
    assert found.p is None and found.df is None and found.detectable is None


def test_two_seeds_on_one_side_still_give_no_p():
    rng = np.random.default_rng(0)
    words = np.full(30, 100)
    assert compare(rng.poisson(20, (5, 30)), rng.poisson(20, (2, 30)), words).p is None
    assert compare(rng.poisson(20, (3, 30)), rng.poisson(20, (3, 30)), words).p is not None


def test_relative_and_points_are_percent():
    found = compare(np.full((3, 4), 20) + np.arange(4), np.full((3, 4), 15) + np.arange(4)[::-1], np.full(4, 100))
    assert np.isclose(found.delta, -5.0) and np.isclose(found.relative, -5.0 / 21.5 * 100)
    assert np.isclose((found.low + found.high) / 2, found.delta)


@given(st.integers(0, 10_000))
def test_order_does_not_matter_and_exchanging_arms_changes_the_sign(seed):
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 200, 8)
    a, b = rng.poisson(0.2 * words, (3, 8)), rng.poisson(0.3 * words, (4, 8))
    shuffled, there, back = rng.permutation(8), compare(a, b, words), compare(b, a, words)
    assert np.allclose(there, compare(a[::-1][:, shuffled], b[:, shuffled], words[shuffled]))
    assert np.allclose((there.delta, there.low, there.p), (-back.delta, -back.high, back.p))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("baseline", "arm", "words"),
    [([20], [10], [100]), ([0, 0], [0, 0], [50, 60]), ([10, 20], [5, 10], [100, 200]), ([7, 9], [7, 9], [70, 80])],
    ids=["one speaker", "no errors", "no variance", "identical"],
)
def test_degenerate_inputs_give_none_and_never_nan(baseline, arm, words, seeds):
    a, b, words = np.tile(baseline, (seeds, 1)), np.tile(arm, (seeds, 1)), np.array(words)
    found = compare(a, b, words)
    assert (found.low, found.high, found.p, found.df, found.detectable) == (None,) * 5
    json.dumps([found, interval(a, words), interval(b, words)], allow_nan=False)


def test_holm_equals_the_textbook_example_and_passes_none_through():
    # 0.01 * 4, 0.03 * 2 raised to the 0.02 * 3 before it, 0.04 * 1 likewise
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.02]), [0.04, 0.06, 0.06, 0.06])
    assert holm([None, 0.9, 0.02]) == [None, 0.9, 0.04]
    assert holm([0.8, 0.9]) == [1.0, 1.0] and holm([None]) == [None]


def test_the_bootstrap_agrees_with_the_t_interval_where_speakers_are_all_the_noise():
    rng = np.random.default_rng(0)
    words = np.full(200, 100)
    a = np.tile(rng.poisson(20, 200), (3, 1))
    b = np.tile(rng.poisson(20, 200), (3, 1))
    found = compare(a, b, words)
    drawn = bootstrap(resample(a, words), resample(b, words))
    assert np.allclose(drawn, (found.low, found.high), atol=0.08 * found.detectable)
    assert drawn == bootstrap(resample(a, words), resample(b, words))


def test_a_resampled_test_set_is_the_same_for_every_decoding_and_holds_every_speaker_it_drew_whole():
    # Of two speakers with 10 and 30 words, four test sets can be drawn; the second decoding has twice the errors.
    rates = resample(np.array([[1, 6], [2, 12]]), np.array([10, 30]), draws=1200)
    assert np.allclose(rates[1], 2 * rates[0])
    found, times = np.unique(rates[0].round(9), return_counts=True)
    assert np.allclose(found, [10.0, 17.5, 20.0]) and np.allclose(times / 1200, [0.25, 0.5, 0.25], atol=0.06)


def test_the_bootstrap_draws_seeds_within_an_arm():
    # No speaker differs from another, so seeds are all that varies: one of 10 or 20 % against one of 10 %.
    words = np.full(50, 100)
    baseline, arm = np.full((1, 50), 10), np.repeat([[10], [20]], 50, axis=1)
    assert np.allclose(bootstrap(resample(baseline, words), resample(arm, words)), (0.0, 10.0))


def test_segments_are_parted_by_two_words_right_in_both_systems():
    # Errors of b minus a: [S | ] at 1, then one good word, then I: one segment of 1 - 1; after CC, D against S.
    found = matched_pairs(["CSCICCD", "CC", "ICC", "CCI"], ["CCCCCS", "CC", "CC", "CCII"])
    assert found.segments == 4  # -2, 0, -1, 1
    assert np.isclose(found.mean, -0.5) and np.isclose(found.deviation, np.std([-2, 0, -1, 1], ddof=1))
    assert matched_pairs(["CC"], ["CC"]).p is None and matched_pairs(["S", "D"], ["C", "C"]).z is None
    with pytest.raises(ValueError, match="unlike references"):
        matched_pairs(["CC", "C"], ["C", "CC"])


def test_matched_pairs_equal_those_of_sctk_on_the_same_files(tmp_path, sctk):
    rng = random.Random(3)

    def noisy(words: list[str]) -> list[str]:
        kinds = [rng.choices(("right", "sub", "del", "ins"), (82, 8, 5, 5))[0] for _ in words]
        other = {"sub": lambda w: ["x"], "del": lambda w: [], "ins": lambda w: [w, "y"], "right": lambda w: [w]}
        return [new for kind, word in zip(kinds, words, strict=True) for new in other[kind](word)]

    references = [rng.choices("abcdefgh", k=rng.randint(3, 15)) for _ in range(200)]
    end = ["the", "end"]  # sc_stats passes over an insertion at the very end of the second system
    systems = {name: [noisy(words) + end for words in references] for name in "ab"}
    references = [words + end for words in references]
    ids = [f"s{i % 9}-{i:03d}" for i in range(len(references))]
    texts = dict(zip(ids, map(" ".join, references), strict=True))
    aligned = b""
    for name, found in systems.items():
        write_scores(tmp_path / name, texts, dict(zip(ids, map(" ".join, found), strict=True)), {u: u[:2] for u in ids})
        command = f"{sctk}/sclite -s -r ref.trn trn -h hyp.trn trn {name} -i spu_id -o sgml stdout"
        aligned += subprocess.run(command.split(), cwd=tmp_path / name, capture_output=True, check=True).stdout
    command = f"{sctk}/sc_stats -p -t mapsswe -v -n -"
    text = subprocess.run(command.split(), cwd=tmp_path, input=aligned, capture_output=True).stdout.decode("latin-1")
    line = next(line for line in text.splitlines() if "MTCH_PR_RESULTS" in line)
    segments, mean, deviation, z = re.findall(r"\((?:# segs|mean|std dev|Z Stat): ([-\d.]+)\)", line)
    found = matched_pairs(read_ops(tmp_path / "a"), read_ops(tmp_path / "b"))
    assert found.segments == int(segments)
    # theirs is a minus b
    assert np.allclose((-found.mean, found.deviation, -found.z), (float(mean), float(deviation), float(z)), atol=6e-4)


@pytest.mark.parametrize("noise", [0, 1, 3])
def test_intervals_cover_and_tests_reject_as_often_as_they_say(noise):
    # 300 trials at 94 to 97 %: four standard errors to either side. The whole table: tests/bench/coverage.py
    found = measure(Setting((3, 3), (noise, noise), 0.15), trials=300)
    assert found["difference"] >= 90 and 0.3 <= found["reject"] <= 10 and 89 <= found["arm"] <= 99.5
