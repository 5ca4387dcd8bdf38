"""Beam search without a lexicon, against the sum over all alignments of all texts."""

import itertools
import math
import shutil
import sys
from contextlib import chdir

import kaldiio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local import hypotheses
from local.decoders.beam import Beam
from local.decoders.greedy import Greedy
from local.errors import InputError
from local.manifest import read_table
from local.text import decode
from tests.conftest import borrow, here
from tests.test_lexicon import log10, model, needs_kenlm, needs_module  # noqa: F401

CHARACTERS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WIDE = {"beam": 10_000, "threshold": 1e4, "token_threshold": 1e4}  # nothing is left out
UNITS = {"characters": " AB", "pieces": ["▁", "A", "▁A"], "phones": ["aa", "a"]}


def random_frames(seed: int, count: int, units: str | list[str]) -> np.ndarray:
    """Log-probabilities [count, 1 + units]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1 + len(units), generator=generator).mul(2).log_softmax(1).numpy()


def sums(frames: np.ndarray, units: str | list[str]) -> dict[str, float]:
    """The log-probability of each text, all ways to name frames added up."""
    found: dict[str, float] = {}
    for path in itertools.product(range(1 + len(units)), repeat=len(frames)):
        text = decode([label for label, _ in itertools.groupby(path) if label], units)
        score = sum(float(frames[i, label]) for i, label in enumerate(path))
        found[text] = np.logaddexp(score, found.get(text, -math.inf))
    return found


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_a_wide_beam_finds_every_text_with_the_sum_of_its_alignments(units, seed, count):
    frames = random_frames(seed, count, units)
    found = Beam(units, **WIDE).search(frames, 10_000)
    assert {one.text: one.score for one in found} == pytest.approx(sums(frames, units), abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), beam=st.integers(1, 4))
def test_the_best_path_is_never_more_probable_and_a_narrow_beam_claims_no_more_than_there_is(units, seed, count, beam):
    frames = random_frames(seed, count, units)
    truth = sums(frames, units)
    (path,) = Greedy(units).search(frames, 1)
    assert path.score <= truth[path.text] + 1e-4
    (best,) = Beam(units, **WIDE).search(frames, 1)
    assert truth[path.text] <= truth[best.text] + 1e-4
    (narrow,) = Beam(units, **WIDE | {"beam": beam}).search(frames, 1)
    assert narrow.score <= truth[narrow.text] + 1e-4


def test_a_batch_gives_the_texts_of_its_utterances_without_their_padding():
    frames = [random_frames(seed, count, " AB") for seed, count in ((1, 5), (2, 3))]
    batch = torch.zeros(2, 5, 4).log_softmax(2)
    for row, each in zip(batch, frames, strict=True):
        row[: len(each)] = torch.from_numpy(each)
    for decoder in (Greedy(" AB"), Beam(" AB", **WIDE)):
        alone = [decoder.search(each, 1)[0].text for each in frames]
        assert decoder(batch, torch.tensor([5, 3])) == alone


def test_nbest_and_log_probabilities_are_kept_on_request(tiny, tmp_path):
    shutil.copytree(tiny / "exp", tmp_path / "exp", symlinks=True)
    borrow(tiny, tmp_path)
    few = ("decoder.splits=[dev]", "decoder.beam=4", "decoder.token_threshold=4")
    with pytest.raises(InputError, match="^decoder.nbest=0: expected how many hypotheses to keep"):
        here(tmp_path, 6, 6, "arm=none", "decoder=beam", "decoder.nbest=0", *few)
    here(tmp_path, 6, 6, "arm=none", "decoder=beam", "decoder.nbest=3", "decoder.posteriors=true", *few)
    (made,) = tmp_path.glob("exp/espeak/*/none-*/beam-*/")
    ranked, scores = hypotheses.read(made / "dev/nbest/text"), read_table(made / "dev/nbest/score")
    assert list(ranked) == list(scores)
    best = hypotheses.read(made / "dev/text")
    with chdir(tmp_path):
        frames = kaldiio.load_scp(str(made / "dev/posteriors.scp"))
        assert set(frames) == set(best)
        for key, text in best.items():
            assert np.exp(frames[key]).sum(1) == pytest.approx(1, abs=1e-3)
            again = Beam(CHARACTERS, 4, 10, 4).search(frames[key], 3)
            keys = [f"{key}-{rank}" for rank in range(1, 1 + len(again))]
            assert [one.text for one in again] == [ranked[each] for each in keys]
            assert [one.score for one in again] == pytest.approx([float(scores[each]) for each in keys], abs=1e-3)
            assert ranked[keys[0]] == text and len({one.text for one in again}) == len(again)
        assert any(key.endswith("-2") for key in ranked) and not any(key.endswith("-4") for key in ranked)


@needs_kenlm
@needs_module
@pytest.mark.parametrize("units", [" AB", ["▁", "B", "▁A"]], ids=["characters", "pieces"])
@pytest.mark.parametrize("seed", range(3))
def test_a_language_model_weighs_the_words_and_those_it_lacks(model, units, seed):  # noqa: F811
    weight, word_score, unknown_score = 0.6, -0.5, -0.3
    decoder = Beam(units, **WIDE, lm=str(model), lm_weight=[1.0], word_score=[0.0], unknown_score=unknown_score)
    decoder.use(lm_weight=weight, word_score=word_score)
    frames = random_frames(seed, 5, units)
    expected = {}
    for text, acoustic in sums(frames, units).items():
        words = text.split()
        known = tuple(word if word in ("A", "AB", "BA") else "<unk>" for word in words)
        score = log10(model / "lm.arpa", known, end=()) + unknown_score * known.count("<unk>")
        expected[text] = acoustic + weight * math.log(10) * score + word_score * len(words)
    found = decoder.search(frames, 10_000)
    assert {one.text: one.score for one in found} == pytest.approx(expected, abs=1e-3)


def test_without_the_module_of_kenlm_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "words").write_text("A\n")
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(InputError, match="^kenlm: .*local/install_kenlm.sh"):
        Beam(" AB", **WIDE, lm=str(tmp_path), lm_weight=[1.0], word_score=[0.0])
