"""Autoencoders and recognizers, on real frames of the tiny run."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from lightning_modules import checkpoint
from lightning_modules.batch import Batch, Batcher
from lightning_modules.encoders import lstm
from lightning_modules.fit import inference
from lightning_modules.health import health
from local import archive, audio, manifest
from local.config import CONF, plain
from local.errors import InputError
from local.extractors import Waveform
from local.text import encode_all

PRETRAINED = {  # what their sweeps put in the place of `masked`
    "mini_librispeech": ("autoencoder=denoising",),
    "mini_librispeech_gpu": ("autoencoder=denoising_large",),
}
UNITS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def configuration(*settings: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(settings))


@pytest.fixture(scope="module")
def data(tiny) -> tuple[archive.Frames, list[list[int]]]:
    """Frames and labels of the tiny run's `train`."""
    (features,) = tiny.glob("data/espeak-*/fbank-*")
    utterances = manifest.read(features.parent / "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny)  # scp files name archives from there
        return archive.read(features / "train", "utterance"), encode_all(utterances, UNITS, {})


@pytest.fixture(scope="module")
def samples(tiny) -> archive.Frames:
    """Frames of the samples of the tiny run's `train`, with variance 1."""
    utterances = manifest.read(next(tiny.glob("data/espeak-*/train")))
    extract = Waveform(sample_rate=16000, win_length=10, hop_length=10)
    frames = [torch.from_numpy(extract(audio.read(tiny / u.audio, 16000)).copy()) for u in utterances]
    lengths = torch.tensor([len(one) for one in frames])
    frames = torch.cat(frames)
    ids, speakers = [u.id for u in utterances], [u.speaker for u in utterances]
    return archive.Frames(ids, speakers, frames / frames.std(), lengths.cumsum(0) - lengths, lengths, 0.01)


def autoencoder(arm: str, *settings: str, dim: int = 80):
    settings = plain(configuration(f"arm={arm}", *settings), "autoencoder") | {"input_dim": dim, "seed": 1}
    return checkpoint.build(settings), settings


def member(name: str, *settings: str, **more):
    """A member of the family, small, as `./run.sh autoencoder=NAME` chooses it."""
    return autoencoder("masked", f"autoencoder={name}", *settings, **more)


def attentive(encoder: str) -> list[str]:
    return [f"encoder@autoencoder.encoder={encoder}", "autoencoder.encoder.width=32", "autoencoder.encoder.layers=2"]


def recognizer(*settings: str, carried: dict | None = None):
    settings = plain(configuration(*settings), "recognizer") | {
        "input_dim": 80, "input_stride": 1, "units": UNITS, "scoring": {}, "seed": 1, "autoencoder": carried
    }  # fmt: skip
    return checkpoint.build(settings), settings


MODELS = {
    "masked": lambda: autoencoder("masked", "autoencoder.encoder.width=16"),
    "dense": lambda: autoencoder("dense"),
    "dense by cross-entropy": lambda: autoencoder("dense", "autoencoder.loss=bce", "autoencoder.activation=sigmoid"),
    "random": lambda: autoencoder("random", "autoencoder.encoder.width=16"),
    "deep tanh": lambda: autoencoder("dense", "autoencoder.widths=[64,32]", "autoencoder.activation=tanh"),
    "stacked, its first layer": lambda: member("stacked"),
    "recurrent, nothing masked": lambda: member("masked", "autoencoder.masked=0", "autoencoder.band=0"),
    "masked and denoising, by L1": lambda: member(
        "masked", "autoencoder.noise=0.3", "autoencoder.drop=0.1", "autoencoder.loss=l1"
    ),
    "transformer": lambda: member("masked", *attentive("transformer")),
    "conformer": lambda: member("masked", *attentive("conformer")),
    "encoder of convolutions": lambda: member("masked", *attentive("convolutional")),
    "convolutional": lambda: member("convolutional"),
    "waveform": lambda: member("waveform", "autoencoder.width=16", dim=160),
    "waveform to filterbanks": lambda: member("waveform", "autoencoder.width=16", "autoencoder.target=logmel", dim=160),
    "clustered": lambda: member("clustered", "autoencoder.encoder.width=16"),
    "variational": lambda: member("variational", "autoencoder.encoder.width=16"),
    "quantized": lambda: member(
        "quantized", "autoencoder.encoder.width=16", "autoencoder.codes=16", "autoencoder.start=0"
    ),
    "predictive": lambda: member("predictive", "autoencoder.width=32"),
    "recognizer": lambda: recognizer("arm=none"),
    "recognizer with convolutions": lambda: recognizer(
        "arm=none", "encoder@recognizer.encoder=convolutional", "recognizer.encoder.width=32"
    ),
    "recognizer with a conformer": lambda: recognizer(
        "arm=none", "encoder@recognizer.encoder=conformer", "recognizer.encoder.width=32"
    ),
    "recognizer on quantized": lambda: recognizer("arm=masked", carried=member("quantized")[1]),
    "recognizer on masked": lambda: recognizer("arm=masked", carried=autoencoder("masked")[1]),
}


def loss_of(module, batch: Batch) -> torch.Tensor:
    torch.manual_seed(0)
    return module.training_step(batch, 0)


def losses(module, batch: Batch) -> tuple[float, float]:
    """Before the first of a few steps on a batch, and before the last."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003)
    first = loss_of(module, batch)
    for _ in range(12):
        optimizer.zero_grad()
        loss = loss_of(module, batch)
        loss.backward()
        optimizer.step()
    return first.item(), loss.item()


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_on_real_audio_lower_the_loss_and_a_checkpoint_gives_the_same_back(name, data, samples, tmp_path):
    module, settings = MODELS[name]()
    batch = Batcher(samples if "waveform" in name else data[0], 2000, seed=1, labels=data[1]).at(0)
    first, last = losses(module, batch)
    assert last < 0.99 * first
    checkpoint.save(tmp_path / "model.pt", module, settings, "fbank-1")
    again, _ = checkpoint.load(tmp_path / "model.pt", "fbank-1")
    expected, found = (getattr(m, "encode", m)(batch.features, batch.lengths)[0] for m in (module.eval(), again))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_mixed_precision_gives_nearly_the_same_loss(name, data, samples):
    batch = Batcher(samples if "waveform" in name else data[0], 2000, seed=1, labels=data[1]).at(0)
    expected = loss_of(MODELS[name]()[0], batch)
    able = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # or oneDNN refuses an LSTM, as on a CPU without AVX-512
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.backends.mkldnn.flags(enabled=able):
        found = loss_of(MODELS[name]()[0], batch)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stages_use_a_model_in_the_precision_that_it_was_trained_in(precision, data):
    module = recognizer("arm=none", f"recognizer.precision={precision}")[0].eval()
    batch = Batcher(data[0], 2000, seed=1).at(0)
    with torch.no_grad():
        expected = module(batch.features, batch.lengths)[0]
    with inference(module):
        found = module(batch.features, batch.lengths)[0]
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
    halved = precision == "bf16-mixed" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert torch.equal(found, expected) == (not halved)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_padding_changes_no_output(name, data, samples):
    module, _ = MODELS[name]()
    call = getattr(module.eval(), "encode", module)
    together = next(Batcher(samples if "waveform" in name else data[0], 10**6, seed=1).all())
    outputs, lengths = call(together.features, together.lengths)
    for i in (0, len(together.ids) // 2):
        size = int(together.lengths[i])
        alone, alone_length = call(together.features[i : i + 1, :size], together.lengths[i : i + 1])
        assert int(alone_length[0]) == int(lengths[i])
        torch.testing.assert_close(outputs[i, : int(lengths[i])], alone[0, : int(lengths[i])], atol=2e-5, rtol=0)
        if hasattr(module, "reconstruct"):
            expected, found = module.reconstruct(alone, alone_length)[0], module.reconstruct(outputs, lengths)[i]
            torch.testing.assert_close(found[:size], expected[:size], atol=2e-5, rtol=0)


@torch.no_grad()
def test_rows_that_a_gpu_gets_for_the_sake_of_an_even_number_change_no_output(monkeypatch):
    encoder = recognizer("arm=none")[0].encoder.eval()
    x, lengths = torch.randn(3, 40, encoder.forwards[0].input_size), torch.tensor([40, 13, 27])
    expected = encoder(x, lengths)
    monkeypatch.setitem(lstm.EVEN, "cpu", 8)
    torch.testing.assert_close(encoder(x, lengths), expected, atol=1e-6, rtol=0)


def test_principal_components_are_those_of_a_singular_value_decomposition(data):
    module, _ = autoencoder("pca", "autoencoder.bottleneck=20")
    batches = Batcher(data[0], 20000, seed=1)
    module.initialize(batches)
    batch = next(batches.all())
    windows = []
    for offset, length in zip(data[0].offsets.tolist(), data[0].lengths.tolist(), strict=True):
        frames = np.pad(data[0].frames[offset : offset + length].numpy().astype(float), ((6, 6), (0, 0)))
        windows += [frames[i : i + 13].reshape(-1) for i in range(0, length, 4)]
    windows = np.stack(windows)
    centered = windows - windows.mean(0)
    components = np.linalg.svd(centered, full_matrices=False)[2][:20]
    codes, lengths = module.encode(batch.features, batch.lengths)
    assert torch.equal(lengths, (batch.lengths + 3) // 4)
    found = np.concatenate([code[:length].numpy() for code, length in zip(codes, lengths.tolist(), strict=True)])
    first = next(i for i, key in enumerate(data[0].ids) if key == batch.ids[0])
    start = sum(-(-int(n) // 4) for n in data[0].lengths[:first])
    expected = centered[start : start + int(lengths[0])] @ components.T
    assert np.allclose(np.abs(found[: int(lengths[0])]), np.abs(expected), atol=2e-3)
    # No linear code of this width reconstructs better: the error is what the components leave.
    whole = module.components.double().numpy()
    assert np.isclose(
        ((centered - centered @ whole.T @ whole) ** 2).sum(),
        (centered**2).sum() - ((centered @ components.T) ** 2).sum(),
        rtol=1e-6,
    )
    output = module.decode(codes, lengths)
    assert output.shape == (len(batch.ids), 4 * codes.shape[1], 80)
    inside = torch.arange(output.shape[1]) < batch.lengths[:, None]
    size = min(output.shape[1], batch.features.shape[1])
    error = ((output[:, :size] - batch.features[:, :size])[inside[:, :size]] ** 2).mean()
    assert float(error) < 0.7 * float((batch.features[:, :size][inside[:, :size]] ** 2).mean())


def test_random_has_the_weights_that_masked_begins_with_and_learns_at_once():
    begins, settings = autoencoder("masked")
    random, frozen = autoencoder("random", "autoencoder.updates=900")
    assert begins.updates > 0 and random.updates == 0
    assert all(torch.equal(value, random.state_dict()[key]) for key, value in begins.state_dict().items())
    assert recognizer("arm=random", "recognizer.thaw=0.5", carried=frozen)[0].thaw == 0
    assert recognizer("arm=masked", "recognizer.thaw=0.5", carried=settings)[0].thaw == 0.5


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "recipe").glob("*.yaml")))
def test_each_arm_can_be_built_in_each_recipe_and_wide_has_as_many_parameters_as_masked_in_all(name):
    sizes = {}
    for arm in sorted({path.stem for path in (CONF / "arm").glob("*.yaml")} - {"external"}):
        settings = (f"recipe={name}", f"arm={arm}", *PRETRAINED.get(name, ()) * (arm in ("masked", "random")))
        cfg = configuration(*settings)
        carried = None
        if cfg.dirs.pretrain:
            module, carried = autoencoder(arm, *settings)
            assert module.updates == (0 if arm in ("random", "pca") else cfg.autoencoder.updates)
        carried = carried if cfg.recognizer.frontend == "finetuned" else None
        sizes[arm] = sum(p.numel() for p in recognizer(*settings, carried=carried)[0].parameters())
    assert abs(sizes["wide"] / sizes["masked"] - 1) < 0.01


def rows(*validations: tuple[float, float, float]) -> list[dict]:
    """A history of (empty hypotheses, WER, loss), every 50 updates."""
    return [
        {"step": 50 * i, "health/blank_rate": 0.9, "health/empty_rate": empty, "val_wer": wer, "val_loss": loss}
        for i, (empty, wer, loss) in enumerate(validations, 1)
    ]


def test_health_tells_a_plateau_from_a_collapse():
    found = health(rows((0, 100, 9), (1, 100, 3), (1, 100, 2.9), (0.4, 98, 2.5), (0, 70, 2)))
    assert (found["state"], found["first_emission"]) == ("speaking", 200)
    assert health(rows((1, 100, 3), (1, 100, 2.9)))["state"] == "plateau"
    assert health(rows((1, 100, 3), (1, 100, 2.9)))["first_emission"] is None
    assert health(rows((0, 98, 2.5), (0, 96, 2.4), (0, 97, 3)))["state"] == "collapse"
    assert health(rows((0.1, 80, 2), (1, 100, 2.1)))["state"] == "collapse"
    assert health([])["state"] == "untrained"


def test_a_checkpoint_refuses_other_features_a_cut_file_and_a_foreign_class(tmp_path):
    module, settings = autoencoder("dense")
    checkpoint.save(tmp_path / "a.pt", module, settings, "fbank-1")
    with pytest.raises(InputError, match="trained on features fbank-1, but given fbank-2"):
        checkpoint.load(tmp_path / "a.pt", "fbank-2")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="no readable checkpoint"):
        checkpoint.load(tmp_path / "b.pt", "fbank-1")
    with pytest.raises(InputError, match="no class of lightning_modules"):
        checkpoint.build({"_target_": "os.system", "command": "true"})


def test_a_checkpoint_of_another_architecture_or_with_other_weights_is_refused(tmp_path):
    module, settings = autoencoder("dense")
    checkpoint.save(tmp_path / "a.pt", module, settings, "fbank-1")
    checkpoint.load(tmp_path / "a.pt", "fbank-1", settings)
    for asked, message in (
        (autoencoder("masked")[1], r"a.pt: made with _target_=.*Dense, but _target_=.*Masked is asked for"),
        (autoencoder("dense", "autoencoder.bottleneck=32")[1], "made with bottleneck=.*, but bottleneck=32 is asked"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoint.load(tmp_path / "a.pt", "fbank-1", asked)
    checkpoint.save(tmp_path / "b.pt", autoencoder("dense", "autoencoder.bottleneck=32")[0], settings, "fbank-1")
    with pytest.raises(InputError, match="b.pt: its weights are not those of its settings") as error:
        checkpoint.load(tmp_path / "b.pt", "fbank-1")
    assert "\n" not in str(error.value)
    checkpoint.write(tmp_path / "c.pt", module.state_dict())
    with pytest.raises(InputError, match="c.pt: has no settings, so it is no checkpoint of ours"):
        checkpoint.load(tmp_path / "c.pt", "fbank-1")


def test_a_loss_that_is_not_finite_names_step_and_utterances(data, monkeypatch):
    module, _ = autoencoder("dense")
    monkeypatch.setattr(type(module), "global_step", 7)
    batch = Batcher(data[0], 2000, seed=1).at(0)
    batch = batch._replace(features=batch.features * float("inf"))
    with pytest.raises(InputError, match=f"step 7.*{batch.ids[0]}"):
        module.training_step(batch, 0)


def test_an_utterance_that_cannot_be_aligned_is_left_out_of_devs_loss_alone(data):
    module = recognizer("arm=none")[0].eval()
    labels = [[1] * 1000, *data[1][1:]]
    batch = Batcher(data[0], 2000, seed=1, labels=labels).cut([0, 1], None)
    frames, lengths = module(batch.features, batch.lengths)
    others = module.ctc(frames[1:], lengths[1:], Batcher(data[0], 2000, seed=1, labels=labels).cut([1], None))
    assert others > 0
    torch.testing.assert_close(module.ctc(frames, lengths, batch), others)
    module.train()
    assert module.ctc(frames, lengths, batch).isinf()


def test_masked_cells_alone_are_scored_and_spans_have_their_length(data):
    module, _ = autoencoder("masked", "autoencoder.band=0")
    batch = Batcher(data[0], 20000, seed=1).at(0)
    torch.manual_seed(3)
    corrupted, cells = module.corrupt(batch.features)
    assert torch.equal(corrupted[~cells], batch.features[~cells])
    assert (corrupted[cells] == module.token.expand_as(corrupted)[cells]).all()
    hidden = cells[:, :, 0]
    inner = hidden[:, 24:-24].float().mean()
    assert 0.35 < float(inner) < 0.65
    for row in hidden.tolist():
        runs = "".join("x" if h else " " for h in row).strip(" ").split()
        assert all(len(run) >= 24 for run in runs[1:-1])


def test_ctc_agrees_with_a_brute_force_sum_over_paths():
    module, _ = recognizer("arm=none")
    generator = torch.Generator().manual_seed(0)
    frames, symbols, labels = 5, 4, [1, 2, 2]
    log_probabilities = torch.randn(1, frames, symbols, generator=generator).log_softmax(2)
    total = torch.tensor(float("-inf"))
    for path in torch.cartesian_prod(*[torch.arange(symbols)] * frames):
        collapsed = [int(u) for u, before in zip(path, [None, *path.tolist()], strict=False) if u and int(u) != before]
        if collapsed == labels:
            total = torch.logaddexp(total, log_probabilities[0, torch.arange(frames), path].sum())
    batch = Batch(["a"], None, None, torch.tensor([labels]), torch.tensor([len(labels)]))
    found = module.ctc(log_probabilities, torch.tensor([frames]), batch)
    assert found.item() == pytest.approx(float(-total) / len(labels), rel=1e-5)


def test_batches_are_functions_of_seed_and_step_and_an_epoch_holds_each_utterance_once(data):
    frames = data[0]
    one, two = Batcher(frames, 2000, seed=5, crop=150), Batcher(frames, 2000, seed=5, crop=150)
    epoch = [one.at(step) for step in range(len(one.plan(0)))]
    assert sorted(key for batch in epoch for key in batch.ids) == sorted(frames.ids)
    late = two.at(len(epoch) + 1)
    assert late.ids == one.at(len(epoch) + 1).ids and torch.equal(late.features, one.at(len(epoch) + 1).features)
    assert [b.ids for b in epoch] != [Batcher(frames, 2000, seed=6).at(s).ids for s in range(len(epoch))]
    assert all(int(b.lengths.max()) <= 150 for b in epoch)


def test_utterances_meet_others_in_each_epoch_and_little_is_padding():
    lengths = torch.randint(200, 1600, (300,), generator=torch.Generator().manual_seed(0))
    ids = [f"u{i}" for i in range(300)]
    frames = archive.Frames(ids, ids, torch.ones(int(lengths.sum()), 1), lengths.cumsum(0) - lengths, lengths, 0.01)
    batcher = Batcher(frames, 8000, seed=1)
    count = len(batcher.plan(0))
    first, second = ([batcher.at(step) for step in range(begin, begin + count)] for begin in (0, count))
    again = {frozenset(b.ids) for b in first} & {frozenset(b.ids) for b in second}
    assert len(again) < count / 10
    inside, cells = sum(int(b.lengths.sum()) for b in first), sum(b.features.numel() for b in first)
    assert inside > 0.95 * cells
