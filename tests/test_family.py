"""What each autoencoder of the family does that the others do not, and the whole recipe on each."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.distributions import Normal, kl_divergence

from lightning_modules.autoencoders.masked import Masked
from lightning_modules.autoencoders.variational import divergence
from lightning_modules.batch import Batch, Batcher
from lightning_modules.datamodule import DataModule
from lightning_modules.fit import fit
from lightning_modules.subsampling import splice
from local.config import plain, signature
from local.errors import InputError
from local.extractors import Fbank
from tests.conftest import TINY, borrow, here
from tests.test_models import autoencoder, data, member, samples  # noqa: F401

FLOATS = st.floats(-3, 3, width=32)


@pytest.fixture
def batch(data) -> Batch:  # noqa: F811
    return Batcher(data[0], 2000, seed=1).at(0)


def at_step(monkeypatch, module, step: int) -> None:
    monkeypatch.setattr(type(module), "global_step", step)


def identity():
    """An autoencoder that reconstructs its input exactly."""
    return autoencoder("pca", "autoencoder.bottleneck=80", "autoencoder.context=0", "autoencoder.stride=1")[0]


@pytest.mark.parametrize("name", ["variational", "quantized", "clustered", "convolutional", "predictive", "stacked"])
def test_the_recipe_goes_from_features_to_hypotheses_with_each(tiny, tmp_path, name):
    folder = borrow(tiny, tmp_path)
    kept = [s for s in TINY if name != "stacked" or s != "autoencoder.width=16"]
    kept += ["autoencoder.learning_rate=0.0001"] + ["autoencoder.widths=[16,8]"] * (name == "stacked")
    here(folder, 3, 6, "arm=masked", f"autoencoder={name}", tiny=kept)
    assert list(folder.glob("exp/espeak/labels-all-0/masked-*/greedy-*/dev/text"))
    summary = json.loads(next(folder.glob(f"exp/pretrain/{name}-*/summary.json")).read_text())
    assert summary["updates"] == 4 and summary["val_loss"] > 0
    assert {"variational": "val_kl", "quantized": "val_perplexity"}.get(name, "val_loss") in summary


def test_the_recipe_goes_through_on_the_samples_themselves(tiny, tmp_path):
    (tmp_path / "data").mkdir()
    (data_of_tiny,) = (tiny / "data").glob("espeak-*")
    (tmp_path / "data/audio").symlink_to(tiny / "data/audio")
    (tmp_path / "data" / data_of_tiny.name).mkdir()
    for path in data_of_tiny.iterdir():
        (tmp_path / "data" / data_of_tiny.name / path.name).symlink_to(path)
    here(tmp_path, 2, 5, "arm=masked", "autoencoder=waveform", "features=waveform")
    assert list(tmp_path.glob("exp/espeak/labels-all-0/masked-*/recognizer.pt"))


@pytest.mark.parametrize("encoder", ["transformer", "conformer"])
def test_an_encoder_of_attention_serves_autoencoder_and_recognizer(tiny, tmp_path, encoder):
    folder = borrow(tiny, tmp_path)
    small = [f"encoder@{user}.encoder={encoder}" for user in ("autoencoder", "recognizer")]
    small += [f"autoencoder.encoder.{size}" for size in ("width=16", "layers=1")] + ["recognizer.encoder.layers=1"]
    here(folder, 3, 5, "arm=masked", *small)
    assert list(folder.glob("exp/espeak/labels-all-0/masked-*/recognizer.pt"))


@given(st.lists(FLOATS, min_size=1, max_size=8), st.lists(FLOATS, min_size=8, max_size=8))
def test_the_divergence_is_that_of_torch(mean, log_variance):
    mean, log_variance = torch.tensor(mean), torch.tensor(log_variance)[: len(mean)]
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(divergence(mean, log_variance), expected, atol=1e-5, rtol=1e-4)


def test_the_divergence_weighs_more_with_each_update_and_a_dimension_pays_for_its_free_bits(batch, monkeypatch):
    module, _ = member("variational", "autoencoder.free_bits=2", "autoencoder.kl_warmup=0.1")
    costs = []
    for step in (0, 34, 69, 500):
        at_step(monkeypatch, module, step)
        costs.append(module.code(batch.features, batch.lengths)[2].item())
    assert np.allclose(costs, [costs[-1] / 70, costs[-1] / 2, costs[-1], costs[-1]])
    free = 0.1 * 64 * 2 * np.log(2) / (4 * 80)  # untrained, all 64 dimensions diverge by less
    assert costs[-1] == pytest.approx(free, rel=1e-5)
    at_step(monkeypatch, module, 0)
    assert module.eval().code(batch.features, batch.lengths)[2].item() == pytest.approx(free, rel=1e-5)


def quantized(codes: int, *more: str):
    return member("quantized", f"autoencoder.codes={codes}", "autoencoder.encoder.width=16", *more)[0]


@given(st.integers(0, 2**20), st.integers(2, 20))
@settings(max_examples=20, deadline=None)
def test_the_nearest_code_is_that_of_a_search_over_all(seed, codes):
    module = quantized(codes)
    vectors = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(seed))
    found = module.nearest(vectors)
    for row, indices in zip(vectors.double().numpy(), found.tolist(), strict=True):
        for vector, index in zip(row, indices, strict=True):
            distances = [((vector - code) ** 2).sum() for code in module.codebook.double().numpy()]
            assert distances[index] == pytest.approx(min(distances), rel=1e-6)


def test_the_codebook_follows_its_vectors_by_moving_averages_and_padding_does_not_count():
    module = quantized(3, "autoencoder.decay=0.9")
    module.counts.copy_(torch.tensor([4.0, 2.0, 1.0]))
    before, vectors = module.codebook.clone().numpy(), torch.randn(2, 3, 64)
    index, inside = torch.tensor([[0, 0, 1], [1, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    module.follow(vectors, torch.nn.functional.one_hot(index, 3).float() * inside[:, :, None])
    first = 0.9 * 4 * before[0] + 0.1 * (vectors[0, 0] + vectors[0, 1]).numpy()
    second = 0.9 * 2 * before[1] + 0.1 * (vectors[0, 2] + vectors[1, 0]).numpy()
    assert module.counts.numpy() == pytest.approx([3.8, 2.0, 0.9])
    assert np.allclose(module.codebook.numpy(), [first / 3.8, second / 2.0, before[2]], atol=1e-6)


def test_dead_codes_begin_again_at_vectors_of_the_batch_and_others_stay():
    module = quantized(4)
    module.counts.copy_(torch.tensor([5.0, 0.01, 3.0, 0.0]))
    before, vectors = module.codebook.clone(), torch.randn(1, 6, 64)
    module.restart(vectors, torch.tensor([[True, True, True, False, False, False]]))
    assert torch.equal(module.codebook[[0, 2]], before[[0, 2]])
    for code in module.codebook[[1, 3]]:
        assert (code == vectors[0, :3]).all(1).any()
    assert (module.counts > 0.05 * module.counts.mean()).all()


def test_the_codes_of_an_untrained_control_are_vectors_of_the_audio(data):  # noqa: F811
    module = member("quantized", "autoencoder.trained=false", "autoencoder.codes=8")[0].eval()
    batches = Batcher(data[0], 2000, seed=1)
    module.initialize(batches)
    with torch.no_grad():
        vectors, lengths = Masked.encode(module, *batches.at(0)[1:3])
    vectors = torch.cat([row[:length] for row, length in zip(vectors, lengths.tolist(), strict=True)])
    assert module.updates == 0
    assert all(torch.isclose(vectors, code, atol=1e-6).all(1).any() for code in module.codebook)


def test_gradients_pass_the_codebook_as_if_it_were_not_there():
    module, vectors = quantized(4), torch.randn(1, 5, 64, requires_grad=True)
    codes, index = module.quantize(vectors)
    assert torch.allclose(codes, module.codebook[index], atol=1e-6)
    (3 * codes).sum().backward()
    assert torch.equal(vectors.grad, torch.full_like(vectors, 3.0))


def test_a_collapsed_codebook_stops_the_training_with_its_step(monkeypatch):
    module = quantized(4, "autoencoder.start=0.1")  # of 700 updates
    for step in (70, 71):
        at_step(monkeypatch, module, step)
        module.used = [torch.tensor([99, 1, 0, 0])]
        if step == 70:
            module.on_validation_epoch_end()
    with pytest.raises(InputError, match="collapsed at step 71: perplexity 1.06 of 4 codes"):
        module.on_validation_epoch_end()


def test_clusters_are_those_of_hidden_clean_frames_and_their_means_are_near(data, monkeypatch):  # noqa: F811
    module = member("clustered", "autoencoder.clusters=8", "autoencoder.weight=0.5", "autoencoder.band=0")[0]
    batches = Batcher(data[0], 2000, seed=1)
    module.initialize(batches)
    batch = batches.at(0)
    groups = batch.features[0, : int(batch.lengths[0]) // 4 * 4].reshape(-1, 320).double().numpy()
    distances = ((groups[:, None] - module.means.double().numpy()) ** 2).sum(2)
    labels = module.labels(batch.features)
    assert labels[0, : len(groups)].tolist() == distances.argmin(1).tolist()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.labels(batch.features), labels)
    assert distances.min(1).mean() < 0.9 * ((groups - groups.mean(0)) ** 2).sum(1).mean()  # or they would say nothing
    cells = torch.zeros_like(batch.features, dtype=torch.bool)
    cells[0, 3:13] = True  # of the groups of four, the second and the third are hidden whole
    codes = torch.randn(len(batch.ids), batch.features.shape[1] // 4, module.dim)
    scores = module.decoder["clusters"](codes)[0, 1:3].log_softmax(1)
    expected = -0.5 * (scores[0, labels[0, 1]] + scores[1, labels[0, 2]]) / 2
    assert module.beside(codes, cells, batch.features).item() == pytest.approx(expected.item(), rel=1e-5)
    assert module.beside(codes, torch.zeros_like(cells), batch.features) == 0


def test_filterbanks_that_a_waveform_autoencoder_reconstructs_are_those_of_the_samples(samples):  # noqa: F811
    module = member("waveform", "autoencoder.width=16", "autoencoder.target=logmel", dim=160)[0]
    batch = Batcher(samples, 4000, seed=1).at(0)
    found = module.target(batch.features, batch.lengths)[0, : int(batch.lengths[0])].numpy()
    waves = batch.features[0, : int(batch.lengths[0])].flatten()[80:].numpy()
    expected = Fbank(n_mels=80, sample_rate=16000, win_length=25, hop_length=10)(waves)
    expected = (expected - expected.mean(0)) / expected.std(0)
    assert found.shape == expected.shape and np.abs(found - expected)[2:-2].max() < 0.02
    assert module.decode(module.encode(batch.features, batch.lengths)[0], batch.lengths).shape[2] == 80


class Killed(Exception):
    pass


@pytest.mark.parametrize("average", [[], ["average=0.5"]])
def test_a_quantized_training_that_goes_on_where_it_was_killed_ends_in_the_same_bits(
    data,  # noqa: F811
    tmp_path,
    monkeypatch,
    average,
):
    def train(name: str) -> dict:
        small = ("updates=6", "check_every=2", "learning_rate=0.0001", "start=0.2", *average)
        module = quantized(8, *(f"autoencoder.{setting}" for setting in small))
        batches = [Batcher(data[0], 1000, seed=1) for _ in range(2)]
        (tmp_path / name).mkdir(exist_ok=True)
        fit(module, *batches, tmp_path / name, name, None, {"accelerator": "cpu"})
        return module.state_dict()

    calm = train("calm")
    with monkeypatch.context() as patch:
        patch.setattr(DataModule, "train_dataloader", killed_at(4, DataModule.train_dataloader))
        with pytest.raises(Killed):
            train("killed")
    again = train("killed")
    assert calm.keys() == again.keys() and all(torch.equal(calm[key], again[key]) for key in calm)
    assert calm["counts"].any() and not torch.equal(calm["codebook"], quantized(8).codebook)


def killed_at(step: int, loader):
    def load(self):
        if self.trainer.global_step == step:
            raise Killed
        return loader(self)

    return load


def test_a_prediction_knows_nothing_of_the_frames_after_the_one_it_is_made_from(batch):
    module = member("predictive", "autoencoder.width=16")[0].eval()
    changed = batch.features.clone()
    changed[:, 40:] += 1
    with torch.no_grad():
        codes, others = (module.encode(x, batch.lengths)[0] for x in (batch.features, changed))
        output, other = (module.decode(x, batch.lengths) for x in (codes, others))
    assert torch.equal(codes[:, :40], others[:, :40]) and not torch.equal(codes[:, 40], others[:, 40])
    assert torch.equal(output[:, :45], other[:, :45]) and not torch.equal(output[:, 45], other[:, 45])
    assert not module.corrupt(batch.features)[1][:, :5].any() and module.corrupt(batch.features)[1][:, 5:].all()


@pytest.mark.parametrize("step, layers", [(0, {0}), (29, {0}), (30, {1}), (60, {2}), (90, {0, 1, 2}), (119, {0, 1, 2})])
def test_a_greedy_training_changes_one_layer_after_the_other_and_then_all(batch, monkeypatch, step, layers):
    module, _ = member("stacked", "autoencoder.updates=120", "autoencoder.widths=[16,12]", "autoencoder.bottleneck=8")
    at_step(monkeypatch, module, step)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    module.training_step(batch, 0).backward()
    optimizer.step()
    changed = {
        key.rpartition(".")[0] for key, value in module.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {f"encoder.{2 * i}" for i in layers} | {f"decoder.{2 * (2 - i)}" for i in layers}


def test_layers_trained_one_after_the_other_reconstruct_better_than_none(batch, monkeypatch):
    module, _ = member("stacked", "autoencoder.updates=120", "autoencoder.widths=[64]", "autoencoder.drop=0")
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003)
    for step in range(80):
        at_step(monkeypatch, module, step)
        loss = module.training_step(batch, 0)
        if step % 40 == 0:
            first = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() < 0.95 * first or step % 40 < 39


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_of_a_greedy_training_reconstructs_what_clean_audio_would_give_it(batch, layer):
    module, _ = member("stacked", "autoencoder.widths=[12]", "autoencoder.drop=0")
    noisy = batch._replace(features=batch.features + torch.randn_like(batch.features), target=batch.features)
    given, wanted = (splice(x, 5)[0, : int(batch.lengths[0])] for x in (noisy.features, noisy.target))
    if layer:
        given, wanted = module.encoder[:2](given), module.encoder[:2](wanted)
    weights = [(one.weight, one.bias) for one in (module.encoder[2 * layer], module.decoder[2 * (1 - layer)])]
    hidden = torch.sigmoid(given @ weights[0][0].T + weights[0][1])
    output = hidden @ weights[1][0].T + weights[1][1]
    expected = (((torch.sigmoid(output) if layer else output) - wanted) ** 2).mean()
    first = noisy._replace(features=noisy.features[:1], lengths=noisy.lengths[:1], target=noisy.target[:1])
    assert module.layer_loss(first, layer).item() == pytest.approx(expected.item(), rel=1e-5)


def test_noise_and_dropped_cells_are_on_the_input_alone(batch):
    module = identity()
    inside = (torch.arange(batch.features.shape[1]) < batch.lengths[:, None])[:, :, None].expand_as(batch.features)
    assert module.loss(batch).item() < 1e-10
    torch.manual_seed(0)
    module.noise = 0.5
    assert module.loss(batch).item() == pytest.approx(0.25, rel=0.05)  # the variance of the noise: the target is clean
    module.noise, module.drop = 0.0, 0.3
    assert module.loss(batch).item() == pytest.approx(0.3 * batch.features[inside].square().mean().item(), rel=0.05)
    kept = module.noisy(torch.ones(10000))
    assert set(kept.tolist()) == {0.0, 1.0} and 0.28 < 1 - kept.mean().item() < 0.32


def test_the_three_losses_are_those_of_their_formulas(batch, monkeypatch):
    module = identity()
    output = torch.randn(batch.features.shape)
    monkeypatch.setattr(module, "decode", lambda codes, lengths: output)
    inside = np.arange(output.shape[1]) < batch.lengths.numpy()[:, None]
    x, y = (one.double().numpy()[inside] for one in (output, batch.features))
    scaled = np.clip((y + 3) / 6, 0, 1)
    sigmoid = 1 / (1 + np.exp(-x))
    expected = {
        "mse": ((x - y) ** 2).mean(),
        "l1": np.abs(x - y).mean(),
        "bce": -(scaled * np.log(sigmoid) + (1 - scaled) * np.log(1 - sigmoid)).mean(),
    }
    for kind, value in expected.items():
        module.kind = kind
        assert module.loss(batch).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("waveform", [], "640 samples to a vector, expected a multiple of the 81 of a frame; .* features=waveform"),
        ("masked", ["band=81"], "band=81: .* fewer filters than the features' 81"),
        ("masked", ["masked=1"], "masked=1 .*a share below 1"),
        ("masked", ["loss=mae"], "autoencoder.loss=mae: expected mse, l1, bce"),
        ("masked", ["noise=-1"], "autoencoder.noise=-1"),
        ("convolutional", ["stride=6"], "stride 6: expected a power of two"),
        ("quantized", ["codes=1"], "expected two codes or more"),
        ("masked", ["encoder.heads=3", "conformer"], "encoder.width=128 heads=3: expected a width divisible"),
        ("masked", ["encoder.kernel=4", "conformer"], "encoder.kernel=4: expected an odd number"),
    ],
)
def test_settings_that_make_no_model_are_refused_in_a_line(name, settings, message):
    words = ["encoder@autoencoder.encoder=conformer" if s == "conformer" else f"autoencoder.{s}" for s in settings]
    with pytest.raises(InputError, match=message) as error:
        member(name, *words, dim=81)
    assert len(str(error.value).splitlines()) == 1


def test_a_mask_longer_than_every_utterance_is_refused_and_one_longer_than_some_is_not(data):  # noqa: F811
    frames, longest = data[0], int(data[0].lengths.max())
    module, _ = member("masked", f"autoencoder.span={longest + 1}")
    with pytest.raises(InputError, match=f"span={longest + 1}: .* the longest has {longest} frames"):
        module.initialize(Batcher(frames, 2000, seed=1))
    module, _ = member("masked", f"autoencoder.span={longest}")
    module.initialize(Batcher(frames, 2000, seed=1))
    shortest = frames.select([int(frames.lengths.argmin())])
    assert torch.isfinite(module.training_step(Batcher(shortest, 2000, seed=1, crop=10).at(0), 0))


def test_a_setting_that_is_null_changes_no_name():
    silent, off, on = (
        OmegaConf.create({"autoencoder": {"width": 3} | more}) for more in ({}, {"noise": None}, {"noise": 0.1})
    )
    assert signature(silent, "autoencoder") == signature(off, "autoencoder") != signature(on, "autoencoder")
    assert plain(off, "autoencoder") == {"width": 3}
