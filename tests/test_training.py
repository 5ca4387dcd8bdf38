"""What every training does, whatever it trains: parts of a batch, averaged weights, rates by layer, word pieces."""

import json
import subprocess
import sys

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.autoencoders.dense import Dense
from lightning_modules.batch import Batcher
from lightning_modules.datamodule import DataModule
from lightning_modules.fit import fit
from local import pieces
from local.config import plain
from local.errors import InputError
from local.manifest import Utterance
from local.text import decode, encode_all
from tests.conftest import REPOSITORY, TINY, borrow, here
from tests.test_models import autoencoder, configuration, data, member, recognizer  # noqa: F401

SMALL = ("autoencoder.updates=4", "autoencoder.check_every=2", "autoencoder.batch_seconds=20")
BPE = plain(configuration("units=bpe"), "units")["inventory"]


def trained(module, frames, out, **trainer) -> dict:
    """The weights that a training ends with."""
    out.mkdir(exist_ok=True)
    batches = [Batcher(frames, 2000, seed=1) for _ in range(2)]
    fit(module, *batches, out, out.name, None, {"accelerator": "cpu"} | trainer)
    return module.state_dict()


def dense(*settings: str):
    return autoencoder("dense", *SMALL, *settings)[0]


@pytest.mark.parametrize("parts", [2, 3, 50])
@pytest.mark.parametrize("name", ["dense", "recognizer"])
def test_the_parts_of_a_batch_have_the_loss_and_the_gradient_of_the_whole(data, monkeypatch, name, parts):  # noqa: F811
    plainly = ("recognizer.time_mask=0", "recognizer.band=0", "recognizer.encoder.dropout=0")
    module = dense() if name == "dense" else recognizer("arm=none", *plainly)[0]
    monkeypatch.setattr(type(module), "global_step", 0)
    batch = Batcher(data[0], 3000, seed=1, labels=data[1] if name == "recognizer" else None).at(0)

    def gradient(batches) -> tuple[float, torch.Tensor]:
        module.zero_grad()
        losses = [module.training_step(one, 0) / len(batches) for one in batches]
        sum(losses).backward()
        return sum(losses).item(), torch.cat([p.grad.flatten() for p in module.parameters()])

    split = list(batch.split(parts))
    assert len(split) == parts
    assert [key for one in split if one.share for key in one.ids] == batch.ids
    assert sum(one.share for one in split) == pytest.approx(parts)
    (loss, whole), (other, summed) = gradient([batch]), gradient(split)
    assert other == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(summed, whole, atol=1e-5 * float(whole.abs().max()), rtol=1e-3)


def full_at(seconds: float):
    """A training step on a machine whose memory is full at batches of so many padded seconds."""
    step = Dense.training_step

    def run(self, batch, batch_idx):
        if batch.features.shape[0] * batch.features.shape[1] > 100 * seconds:
            torch.empty(2**60)  # which the allocator refuses as it refuses all that is too much
        return step(self, batch, batch_idx)

    return run


def test_a_batch_too_large_for_memory_names_the_setting_or_is_taken_in_parts(data, tmp_path, monkeypatch, caplog):  # noqa: F811
    expected = trained(dense(), data[0], tmp_path / "whole")
    monkeypatch.setattr(Dense, "training_step", full_at(9))
    with pytest.raises(InputError, match="autoencoder.batch_seconds=20: .* lower it, or set trainer.auto_batch=true"):
        trained(dense(), data[0], tmp_path / "refused")
    found = trained(dense(), data[0], tmp_path / "parts", auto_batch=True)
    assert "each batch is taken in 4 parts" in caplog.text
    losses = [
        [row["loss"] for row in json.loads((tmp_path / one / "history.json").read_text())] for one in ("whole", "parts")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-3)
    monkeypatch.setattr(Dense, "training_step", full_at(0.1))
    with pytest.raises(InputError, match="not even one utterance at a time fits"):
        trained(dense(), data[0], tmp_path / "never", auto_batch=True)


def test_memory_that_fills_late_loses_no_update_that_a_checkpoint_has(data, tmp_path, monkeypatch):  # noqa: F811
    expected = trained(dense(), data[0], tmp_path / "whole")
    asked, full, step, loader = [], [3], Dense.training_step, DataModule.train_dataloader

    def late(self, batch, batch_idx):
        if self.global_step in full:
            full.clear()  # once
            torch.empty(2**60)
        return step(self, batch, batch_idx)

    def noted(self):
        asked.append(self.trainer.global_step)
        return loader(self)

    monkeypatch.setattr(Dense, "training_step", late)
    monkeypatch.setattr(DataModule, "train_dataloader", noted)
    found = trained(dense(), data[0], tmp_path / "late", auto_batch=True)
    assert asked[:3] == [0, 2, 2] and {*asked} == {0, 2}  # it goes on behind the second update, to the fourth
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-3)


def test_averaged_weights_are_a_moving_average_of_those_after_each_update(data, tmp_path, monkeypatch):  # noqa: F811
    after, step = [], Dense.on_train_batch_start

    def noted(self, batch, batch_idx):
        after.append({key: value.clone() for key, value in self.state_dict().items()})
        step(self, batch, batch_idx)

    last = trained(dense("autoencoder.check_every=4"), data[0], tmp_path / "plain")
    monkeypatch.setattr(Dense, "on_train_batch_start", noted)
    found = trained(dense("autoencoder.check_every=4", "autoencoder.average=0.7"), data[0], tmp_path / "averaged")
    for key, value in found.items():
        expected = after[1][key]
        for weights in (after[2], after[3], last):
            expected = 0.7 * expected + 0.3 * weights[key]
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("encoder, layers", [("lstm", 2), ("transformer", 4), ("conformer", 4)])
def test_each_layer_of_a_front_end_learns_at_a_share_of_the_next_ones_rate(encoder, layers):
    carried = member("masked", f"encoder@autoencoder.encoder={encoder}")[1]
    settings = ("recognizer.learning_rate=0.01", "recognizer.frontend_rate=0.5", "recognizer.layer_decay=0.8")
    module = recognizer("arm=masked", *settings, carried=carried)[0]
    rates = {id(p): group.get("lr", 0.01) for group in module.parameter_groups() for p in group["params"]}
    assert len(rates) == len(list(module.parameters()))
    names = {name: rates[id(p)] for name, p in module.named_parameters()}
    front = {rate for name, rate in names.items() if name.startswith("autoencoder.")}
    assert sorted(front, reverse=True) == pytest.approx([0.005 * 0.8**i for i in range(layers + 2)])
    assert names["output.weight"] == 0.01
    assert names["autoencoder.to_bottleneck.weight"] == 0.005
    assert names["autoencoder.token"] == names["autoencoder.subsampling.project.weight"] == min(front)


def test_the_rate_rises_over_the_warmup_and_falls_to_nothing():
    settings = ("recognizer.updates=20", "recognizer.warmup=0.25", "recognizer.learning_rate=0.01")
    found = recognizer("arm=none", *settings)[0].configure_optimizers()
    optimizer, schedule, rates = found["optimizer"], found["lr_scheduler"]["scheduler"], []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01]) and rates[5] == pytest.approx(0.01)
    assert [a - b for a, b in zip(rates[5:], rates[6:], strict=False)] == pytest.approx([0.01 / 15] * 14)
    assert optimizer.param_groups[0]["lr"] == 0


def test_gradients_are_clipped(data, tmp_path, monkeypatch):  # noqa: F811
    norms, step = [], torch.optim.AdamW.step

    def noted(self, *arguments, **more):
        ended = step(self, *arguments, **more)  # its closure makes the gradients
        given = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack(given).norm()))
        return ended

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr(Dense, "scale", lambda self, features: 1000 * features)
    trained(dense(), data[0], tmp_path)
    assert norms and max(norms) == pytest.approx(5, rel=1e-3)


def test_a_front_end_is_trained_from_its_thaw_on(data, monkeypatch):  # noqa: F811
    carried = member("masked", "autoencoder.encoder.width=16")[1]
    module = recognizer("arm=masked", "recognizer.updates=10", "recognizer.thaw=0.4", carried=carried)[0]
    batch = Batcher(data[0], 2000, seed=1, labels=data[1]).at(0)
    for step, trained_too in ((0, False), (3, False), (4, True)):
        monkeypatch.setattr(type(module), "global_step", step)
        module.zero_grad()
        module.training_step(batch, 0).backward()
        given = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(name.startswith("autoencoder.encoder.") for name in given) == trained_too
        assert any(name.startswith("encoder.") for name in given)


@pytest.mark.parametrize("as_pretrained", [False, True])
def test_spans_and_a_band_of_an_utterance_are_hidden_by_the_mean_or_by_the_token_of_pretraining(as_pretrained):
    carried = member("masked", "autoencoder.encoder.width=16")[1]
    settings = ("recognizer.time_mask=0.3", "recognizer.span=10", "recognizer.band=0.25")
    module = recognizer("arm=masked", *settings, f"recognizer.as_pretrained={as_pretrained}", carried=carried)[0]
    torch.manual_seed(0)
    features = 5 + torch.rand(40, 1000, 80)
    found = module.augment(features)
    hidden = found != features
    frames, bands = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, frames[:, :, None] | bands[:, None, :])
    assert float(frames.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert 0 < int(bands.sum(1).max()) <= 20 and len(bands.sum(1).unique()) > 5
    fill = module.autoencoder.token.expand_as(features) if as_pretrained else torch.zeros_like(features)
    assert torch.equal(found[hidden], fill[hidden])


def test_of_checkpoints_as_good_on_dev_the_last_is_kept(tiny):
    """Of a plateau, on which all words are wrong and the loss falls."""
    for summary in tiny.glob("exp/espeak/*/none-*/summary.json"):
        rows = json.loads(summary.with_name("history.json").read_text())
        rates = [row["val_wer"] for row in rows]
        assert len(rows) > 1 and len({*rates}) == 1
        assert json.loads(summary.read_text())["chosen_step"] == rows[-1]["step"]


TEXT = st.lists(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ'", min_size=1, max_size=12), max_size=8).map(" ".join)


@given(TEXT)
def test_word_pieces_give_any_text_back(text):
    (row,) = encode_all([Utterance("a", "a", "a.wav", 1.0, text)], BPE, {})
    assert decode(row, BPE) == text
    assert len(row) <= len(text) + 1


def test_an_inventory_segments_as_the_model_that_it_was_learnt_by(librispeech, tmp_path):
    paths = sorted(librispeech.glob("heldout-dev/*/*/*.trans.txt"))
    sentences = [line.split(" ", 1)[1] for path in paths for line in path.read_text().splitlines()]
    inventory = pieces.learn(sentences, 120)
    assert len(inventory) == len(set(inventory)) == 120
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(tmp_path / "model"), model_type="bpe", vocab_size=121,
        character_coverage=1.0, normalization_rule_name="identity", bos_id=-1, eos_id=-1, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "model.model"))
    for sentence in sentences:
        assert pieces.segmented(sentence, inventory) == model.encode(sentence, out_type=str)


def test_pieces_are_learnt_from_what_follows_the_ids_of_a_kaldi_text(tmp_path):
    (tmp_path / "text").write_text("utt1\tBE WE\nutt2 WE BE\nutt3\n")
    command = [sys.executable, "-m", "local.pieces", str(tmp_path / "text")]
    done = subprocess.run([*command, "4"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert set("".join(json.loads(done.stdout.removeprefix("inventory: ")))) == {pieces.MARK, *"BEW"}
    (tmp_path / "text").write_text("utt3\n")
    done = subprocess.run([*command, "4"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 1
        and done.stderr == f"error: {tmp_path}/text: no sentence in it, expected text to learn from\n"
    )


def test_a_character_that_no_piece_has_names_its_utterance():
    with pytest.raises(InputError, match="a-1: 'Ä' in its transcript, expected only units.inventory"):
        encode_all([Utterance("a-1", "a", "a.wav", 1.0, "AN Ä")], BPE, {})


def test_the_recipe_goes_from_features_to_scores_in_word_pieces(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    here(folder, 5, 7, "arm=none", "units=bpe", tiny=TINY)
    assert "%WER" in next(folder.glob("exp/espeak/labels-all-0/none-*/greedy-*/score/dev/wer")).read_text()
