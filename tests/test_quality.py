"""What a bottleneck holds: the measures against references, and what stages 4 and 8 make of them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch.distributions import Normal, kl_divergence

from lightning_modules.batch import Batcher
from lightning_modules.reconstruction import errors, fill, interpolate, reconstruct
from local import quality
from local.marker import written
from local.results import entries
from local.tables import render_markdown
from tests.conftest import borrow, here
from tests.test_family import identity
from tests.test_models import MODELS, autoencoder, data, member, samples  # noqa: F401
from tests.test_recipe import results
from tests.test_results import cell

MATRICES = arrays.arrays(
    float, st.tuples(st.integers(2, 12), st.integers(1, 6)), elements=st.floats(-9, 9).map(lambda x: round(x, 2))
)


@given(MATRICES.filter(lambda x: np.ptp(x, axis=0).max() > 0.1))
def test_effective_rank_is_that_of_the_singular_values_of_the_centered_vectors(x):
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    shares = values[values > 1e-6 * values[0]] / values.sum()
    expected = np.prod(shares**-shares)
    found = quality.spread([x[:1], x[1:]])["effective_rank"]
    assert found == pytest.approx(expected, rel=1e-4) and 1 - 1e-6 <= found <= min(x.shape) + 1e-6


def test_dimensions_that_hardly_move_are_dead():
    x = np.random.default_rng(0).normal(size=(500, 8)) * [1, 1, 1, 1, 0.1, 5e-4, 1e-5, 0] + 7
    assert quality.spread([x])["dead_units"] == 3 / 8


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_the_probe_is_the_logistic_regression_of_another_optimizer(seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(15, 2)), rng.integers(0, 3, 15)

    def cost(flat: np.ndarray) -> float:
        weight, bias = flat[:6].reshape(3, 2), flat[6:]
        logits = x @ weight.T + bias
        return (logsumexp(logits, axis=1) - logits[np.arange(15), labels]).sum() + (weight**2).sum() / 2

    weight, bias = quality.logistic_regression(torch.from_numpy(x), torch.from_numpy(labels), 3)
    expected = minimize(cost, np.zeros(9))
    assert cost(np.concatenate([weight.flatten(), bias])) <= expected.fun + 1e-6
    if set(labels) == {0, 1, 2}:  # else a bias has no bound
        assert np.allclose(weight.flatten(), expected.x[:6], atol=1e-3)


def voices(speakers: int, each: int, spread: float = 1.0) -> tuple[list[np.ndarray], list[str]]:
    """Utterances of unlike length, whose vectors scatter around a place of their speaker's own."""
    rng = np.random.default_rng(0)
    names = [f"s{k}" for k in range(speakers) for _ in range(each)]
    places = {name: spread * rng.normal(size=16) for name in names}
    return [places[name] + rng.normal(size=(rng.integers(20, 60), 16)) for name in names], names


def test_the_probe_finds_speakers_where_they_are_and_nothing_where_they_are_not():
    found = quality.speaker_probe(*voices(20, 4))
    assert found["speaker_accuracy"] == 1 and found["speaker_chance"] == 1 / 20
    assert quality.speaker_probe(*voices(20, 4, spread=0))["speaker_accuracy"] < 0.3
    vectors, names = voices(20, 4)
    normalized = [(each - each.mean(0)).astype(np.float32) for each in vectors]
    assert quality.speaker_probe(normalized, names)["speaker_accuracy"] == 1 / 20


def test_without_two_utterances_of_two_speakers_there_is_no_probe():
    vectors, _ = voices(1, 5)
    for names in ("aaaaa", "abcde", "aabcd"):
        assert not quality.speaker_probe(vectors, list(names))
    assert quality.speaker_probe(vectors, list("aabbc"))["speaker_chance"] == 1 / 2


def test_a_frame_has_the_phone_in_whose_span_its_center_lies():
    spans = [(0.01, 0.03, "a"), (0.04, 0.012, "b"), (0.06, 0.02, "c"), (0.07, 0.02, "d")]
    assert quality.phones_at(spans, 12, 0.01) == ["", "a", "a", "a", "b", "b", "c", "d", "d", "", "", ""]
    assert quality.phones_at(spans, 4, 0.04) == ["", "b", "d", ""]
    assert quality.phones_at([], 2, 0.01) == ["", ""]


def spoken(utterances: int, spread: float) -> tuple[list[np.ndarray], list[list[quality.Span]]]:
    """Utterances of 1 s, 25 vectors each, which scatter around places of their phones' own; two in five are `sil`."""
    rng, places = np.random.default_rng(1), np.random.default_rng(0).normal(size=(39, 16))
    vectors, spans = [], []
    for _ in range(utterances):
        said = [0 if i % 3 == 0 else rng.integers(1, 39) for i in range(5)]
        vectors.append(spread * places[np.repeat(said, 5)] + 0.1 * rng.normal(size=(25, 16)))
        spans.append([(round(0.2 * i, 5), 0.2, f"p{phone:02d}" if phone else "sil") for i, phone in enumerate(said)])
    return vectors, spans


def test_the_probe_finds_phones_where_they_can_be_read_linearly_and_else_what_is_frequent():
    for spread, least, most in ((1.0, 0.98, 1.0), (0.0, 0.35, 0.45)):
        vectors, spans = spoken(300, spread)
        found = quality.measures(
            vectors[200:], vectors[:200], ["a"] * 200, {"dev": spans[200:], "train": spans[:200]}, 0.04
        )
        assert found["phone_chance"] == pytest.approx(0.4) and least < found["phone_accuracy"] <= most
        assert "speaker_accuracy" not in found


def test_what_train_does_not_have_is_wrong_and_what_has_no_phone_does_not_count():
    vectors = [np.eye(3)[[0, 0, 1, 1, 2]]]
    found = quality.phone_probe(vectors, vectors, [["a", "a", "b", "b", ""]], [["a", "a", "b", "c", ""]])
    assert found == {"phone_accuracy": 3 / 4, "phone_chance": 1 / 2}
    for train, dev in ((["a"] * 5, ["a"] * 5), ([""] * 5, ["a"] * 5), (["a", "b", "", "", ""], [""] * 5)):
        assert not quality.phone_probe(vectors, vectors, [train], [dev])
    silent = [np.zeros((5, 3))]  # of dead dimensions: what is frequent is left
    assert quality.phone_probe(silent, silent, [list("aaabb")], [list("aabbb")])["phone_accuracy"] == 2 / 5


def test_a_small_split_is_sampled_whole_however_uneven_its_speakers_are():
    of = {f"u{i:03d}": f"s{max(0, i - 120)}" for i in range(196)}
    assert sorted(quality.sample(of, 200)) == sorted(of)


@given(st.integers(1, 900), st.integers(201, 2000))
def test_of_a_large_split_a_bounded_part_is_sampled_with_several_utterances_of_a_speaker(speakers, utterances):
    of = {f"u{i:04d}": f"s{i % speakers}" for i in range(utterances)}
    found = quality.sample(of, 200)
    assert found == quality.sample(dict(reversed(of.items())), 200) and len(set(found)) == len(found)
    assert 100 <= len(found) <= 200
    counts = [sum(of[key] == speaker for key in found) for speaker in {of[key] for key in found}]
    assert np.median(counts) >= min(4, utterances // speakers)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_gaps_are_interpolated_as_numpy_does(frames, seed, share):
    rng = np.random.default_rng(seed)
    x, known = rng.normal(size=(2, frames, 3)), rng.random((2, frames, 3)) < share
    found = interpolate(torch.from_numpy(x), torch.from_numpy(known)).numpy()
    for b in range(2):
        for d in range(3):
            there = np.flatnonzero(known[b, :, d])
            expected = np.interp(np.arange(frames), there, x[b, there, d]) if len(there) else np.zeros(frames)
            assert np.allclose(found[b, :, d], expected, atol=1e-6)  # of single precision


def test_a_band_hidden_throughout_is_interpolated_over_frequency():
    plane = torch.arange(7.0)[:, None] + 10 * torch.arange(6.0)
    known = torch.ones(7, 6, dtype=torch.bool)
    known[:, 2:4] = known[3:5] = False
    assert torch.allclose(fill((plane * known)[None], known[None])[0], plane)


@torch.no_grad()
def test_errors_are_0_for_the_identity_and_1_for_the_mean(data):  # noqa: F811
    module = identity()
    assert errors(module, data[0]) == {"reconstruction_error": pytest.approx(0, abs=1e-9)}
    module.components.zero_()
    module.mean.copy_(data[0].frames.mean(0))
    assert errors(module, data[0])["reconstruction_error"] == pytest.approx(1)


@torch.no_grad()
def test_masked_errors_are_those_of_hidden_cells_alone(data):  # noqa: F811
    module, _ = autoencoder("masked", "autoencoder.encoder.width=16")
    few = data[0].select([0, 1, 2])
    found = errors(module.eval(), few)
    (batch,) = Batcher(few, 10**6, seed=0).all()
    corrupted, output, hidden = reconstruct(module, batch)
    x, y, out, mask = batch.features.numpy(), output.numpy(), corrupted.numpy(), hidden.numpy()
    inside = np.arange(x.shape[1]) < batch.lengths.numpy()[:, None]
    assert np.array_equal(out[inside][~mask[inside]], x[inside][~mask[inside]]) and not mask[~inside].any()
    assert 0.3 < mask[inside].mean() < 0.8
    mean = data[0].frames.numpy().mean(0)
    for key, cells in (("masked_error", mask), ("reconstruction_error", inside[:, :, None] & np.full_like(mask, True))):
        assert found[key] == pytest.approx((((x - y) ** 2)[cells].sum() / ((x - mean) ** 2)[cells].sum()), rel=1e-4)


@torch.no_grad()
def test_the_divergence_of_each_dimension_is_that_of_its_gaussians_over_all_vectors(data):  # noqa: F811
    module, _ = member("variational", "autoencoder.encoder.width=16", "autoencoder.masked=0", "autoencoder.band=0")
    found = errors(module.eval(), data[0])
    nats = []
    for batch in Batcher(data[0], 1, seed=0).all():  # an utterance at a time
        hidden, (count,) = module.hidden(batch.features, batch.lengths)
        scale = (module.to_log_variance(hidden[0, :count]) / 2).exp()
        posterior = Normal(module.to_bottleneck(hidden[0, :count]), scale)
        nats.append(kl_divergence(posterior, Normal(0.0, 1.0)))
    expected = torch.cat(nats).mean(0)
    assert np.allclose(found["kl_by_dimension"], sorted(expected.tolist(), reverse=True), rtol=1e-3)
    assert found["kl"] == pytest.approx(float(expected.sum()), rel=1e-3) and "masked_error" not in found


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("recognizer")])
@torch.no_grad()
def test_a_reconstruction_is_on_the_scale_of_the_features_and_what_the_loss_is_taken_of(name, data, samples):  # noqa: F811
    module = MODELS[name]()[0].eval()
    batch = Batcher(samples if "waveform" in name else data[0], 2000, seed=1).at(0)
    target = module.target(batch.features, batch.lengths)
    codes = module.encode(batch.features, batch.lengths)
    found = module.reconstruct(*codes)[:, : batch.features.shape[1]]
    assert found.shape == target.shape
    if "dense" not in name and "tanh" not in name and "stacked" not in name and module.kind == "mse":
        expected = module.error(module.decode(*codes)[:, : batch.features.shape[1]], target)
        assert torch.allclose((found - target) ** 2, expected)


def test_the_reconstruction_of_windows_is_their_centers_in_standard_deviations(data):  # noqa: F811
    module, _ = autoencoder("dense", "autoencoder.loss=bce", "autoencoder.context=1")
    with torch.no_grad():
        module.decoder[-1].weight.zero_()
        module.decoder[-1].bias.copy_(torch.tensor([9.0, 0.0, -9.0]).repeat_interleave(80) + torch.arange(240) / 240)
        batch = Batcher(data[0], 2000, seed=1).at(0)
        found = module.reconstruct(*module.encode(batch.features, batch.lengths))
    expected = 6 / (1 + np.exp(-np.arange(80, 160) / 240)) - 3
    assert np.allclose(found[0, 0].numpy(), expected, atol=1e-5)


def test_stage_4_measures_each_checkpoint_and_draws_it(tiny):
    for name, dimensions in (("masked", 64), ("dense", 64)):
        directories = sorted((tiny / "exp/pretrain").glob(f"{name}-*/bottleneck/espeak-*"))
        assert len(directories) == 2
        for directory in directories:
            found = json.loads((directory / "quality.json").read_text())
            assert found["dimensions"] == dimensions and 1 < found["effective_rank"] < dimensions
            assert 0 < found["reconstruction_error"] < 1.5
            assert ("masked_error" in found) == ("interpolation_error" in found) == (name == "masked")
            assert found["features"]["dimensions"] == 80 and not [key for key in found if "phone" in key]
            assert (directory / "reconstruction.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_measurement_gives_the_same_bytes_and_nothing_later_depends_on_it(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    here(folder, 3, 4, "arm=masked")
    (again,) = folder.glob("exp/pretrain/masked-*/bottleneck/espeak-*")
    first = tiny / again.relative_to(folder)
    for name in ("quality.json", "reconstruction.png", "dev/feats.0.ark", "train/feats.0.ark"):
        assert (again / name).read_bytes() == (first / name).read_bytes(), name
    marker = json.loads((again / "done.json").read_text())
    (again / "quality.json").write_text("{}")
    assert written(again)["content"] == marker["content"]


def test_the_report_has_a_row_for_each_arm_that_was_measured_and_one_for_the_features(tiny):
    (entry,) = results(tiny)
    assert ["quality" in arm for arm in entry["arms"]] == [False, True, True]
    page = (tiny / "exp/espeak/report/RESULTS.md").read_text()
    lines = page[page.index("What the bottleneck holds") :].splitlines()[2:7]
    assert lines[0].startswith("| arm | dimensions | error, masked | interpolation | error, all | effective rank |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| features", "| dense", "| masked"]
    assert "phones" not in page and not [*tiny.glob("data/*/*/phones.ctm")]
    masked = [json.loads(path.read_text()) for path in tiny.glob("exp/pretrain/masked-*/bottleneck/*/quality.json")]
    assert f" {np.mean([found['masked_error'] for found in masked]):.3f} |" in lines[4]
    assert "What the bottleneck holds" in (tiny / "output.txt").read_text()
    pictures = sorted(path.name.split("-")[1] for path in tiny.glob("exp/espeak/report/reconstruction-*.png"))
    assert pictures == ["dense", "masked"]
    logged = tiny.glob("exp/espeak/report/wandb/offline-run-*/files/media/images/reconstruction-*.png")
    assert sorted(path.name.split("-")[1] for path in logged) == pictures


def test_a_row_is_the_mean_of_the_seeds_that_were_measured_and_old_results_have_no_such_table(tmp_path):
    features = {"dimensions": 80, "effective_rank": 40.0}
    held = [{"dimensions": 8, "kl": 2.0, "kl_by_dimension": [2.0, 0.0]}, {"dimensions": 8, "kl": 5.0}, None]
    cells = [
        cell(tmp_path, "masked", seed, [5, 6], quality=each and each | {"features": features, "effective_rank": seed})
        for seed, each in enumerate(held, 1)
    ]
    (entry,) = entries([*cells, cell(tmp_path, "none", 1, [5, 6])])
    assert entry["arms"][1]["quality"] == {
        "dimensions": 8, "kl": 3.5, "effective_rank": 1.5, "features": features
    }  # fmt: skip
    page = render_markdown([entry])
    assert "| features | 80 | 40.0 | - |\n| masked | 8 | 1.5 | 3.50 |\n\n" in page and "| none | 8" not in page
    probed = {"speaker_accuracy": 0.5, "speaker_chance": 0.1, "phone_accuracy": 0.523, "phone_chance": 0.2}
    entry["arms"][1]["quality"] |= probed
    page = render_markdown([entry])
    assert "| KL, nats | speakers % | phones % |\n" in page and "gives. Another, trained on frames of train" in page
    assert "| features | 80 | 40.0 | - | - | - |\n| masked | 8 | 1.5 | 3.50 | 50.0 (10.0) | 52.3 (20.0) |\n" in page
    del entry["arms"][1]["quality"]
    assert "holds" not in render_markdown([entry]) and "| features |" not in render_markdown([entry])
