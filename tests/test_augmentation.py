"""Waveform augmentation: on real audio of the tiny run, against computations of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.augmentation import Audio, AudioBatcher, Augmentation
from lightning_modules.batch import Batcher
from local import archive, audio, manifest
from local.augmentation import fewest, load
from local.config import make, plain
from local.errors import InputError
from local.features import extract_shard
from local.marker import read_marker
from local.results import entries
from local.tables import render_markdown
from tests.conftest import REPOSITORY, TINY, here, recipe, speech
from tests.test_models import autoencoder, configuration, loss_of, losses
from tests.test_results import cell, errors
from tests.test_survival import LONGER, same, start, weights

NEUTRAL = {"speeds": [1.0], "noises": None, "snr": [5, 20], "rooms": None, "share": 0.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """The settings for a folder of noises, short and long, and one of rooms."""
    root = tmp_path_factory.mktemp("folders")
    (root / "noises/more").mkdir(parents=True)
    (root / "rooms").mkdir()
    soundfile.write(root / "noises/short.wav", speech(0.2, 1), 16000)
    soundfile.write(root / "noises/more/long.FLAC", speech(20, 2), 16000, format="FLAC")
    soundfile.write(root / "noises/other_rate.ogg", speech(2, 3), 48000)
    (root / "noises/README").write_text("no audio")
    decay = np.exp(-np.arange(4000) / 800)
    for number in range(3):
        room = np.concatenate([np.zeros(50 * number), [1.0], speech(0.25, number) * decay])
        soundfile.write(root / f"rooms/{number}.wav", room / 2, 16000, subtype="FLOAT")
    return {"noises": str(root / "noises"), "rooms": str(root / "rooms")}


def augmentation(**changes) -> Augmentation:
    return Augmentation(**NEUTRAL | changes, sample_rate=16000, longest=20000, device=torch.device("cpu"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def stored(tiny, tmp_path_factory):
    """A function from a kind of features to an archive of the tiny run's `train` that stores its audio."""
    made: dict[str, Path] = {}

    def get(kind: str) -> tuple[Path, dict]:
        extractor = plain(configuration(f"features={kind}"), "features")["extractor"]
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "pretrain"
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tiny)  # wav.scp names files from there
                utterances = manifest.read(next(tiny.glob("data/espeak-*/train")))
                writer = archive.Writer(made[kind], made[kind], 0)
                extract_shard(extractor, False, False, "audio", utterances, writer)
            archive.join(made[kind], 0.01)
        return made[kind], extractor

    return get


def batcher(
    source: tuple[Path, dict], cmvn="utterance", crop=None, labels=None, seed=1, held=True, **changes
) -> AudioBatcher:
    audio = Audio(source[0], cmvn, make(source[1]))
    ids = list(manifest.read_table(source[0] / "utt2spk"))
    return AudioBatcher(audio.read(ids, held), 3000, seed, crop, labels, audio, NEUTRAL | changes)


@pytest.mark.parametrize("kind", ["fbank", "mfcc", "spectrogram", "waveform"])
@pytest.mark.parametrize("cmvn", ["utterance", "speaker", "global", "none"])
def test_neutral_batches_of_audio_are_those_of_stored_features(stored, kind, cmvn):
    ours = batcher(stored(kind), cmvn)
    theirs = Batcher(archive.read(stored(kind)[0], cmvn, ours.data.ids), 3000, 1)
    steps = range(len(theirs.plan(0)))
    pairs = [*zip(ours.all(), theirs.all(), strict=True), *((ours.at(step), theirs.at(step)) for step in steps)]
    assert len(pairs) > 4 and len(pairs[0][0].ids) > 2
    for one, other in pairs:
        assert one.ids == other.ids and torch.equal(one.lengths, other.lengths) and one.target is None
        torch.testing.assert_close(one.features, other.features, atol=1e-3, rtol=0)


def test_stored_audio_is_what_kaldiio_reads_and_what_the_file_holds(stored, tiny, monkeypatch):
    table = kaldiio.load_scp(str(stored("fbank")[0] / "wav.scp"))
    monkeypatch.chdir(tiny)
    for utterance in manifest.read(next(tiny.glob("data/espeak-*/train")))[:5]:
        rate, samples = table[utterance.id]
        assert rate == 16000 and samples.dtype == np.int16
        np.testing.assert_array_equal(samples / np.float32(32768), audio.read(utterance.audio, 16000))


def test_excerpts_are_cut_at_the_frames_that_stored_features_are_cut_at(stored):
    ours = batcher(stored("waveform"), "none", crop=60)
    theirs = Batcher(archive.read(stored("waveform")[0], "none", ours.data.ids), 3000, 1, crop=60)
    for step in range(3):
        one, other = ours.at(step), theirs.at(step)
        assert one.ids == other.ids and torch.equal(one.lengths, other.lengths)
        # At its edges an excerpt has zeros where the stored frames go on.
        torch.testing.assert_close(one.features[:, 2:56], other.features[:, 2:56], atol=1e-3, rtol=0)


@pytest.mark.parametrize("speed", [0.9, 1.1, 0.95])
def test_speed_changes_length_and_pitch_by_its_factor(speed):
    waves, lengths = torch.zeros(2, 16000), torch.tensor([16000, 9000])
    for row, size in enumerate(lengths.tolist()):
        waves[row, :size] = torch.sin(2 * torch.pi * 1000 * torch.arange(size) / 16000)
    found, sizes = augmentation(speeds=[speed]).speed(waves, lengths, seeded())
    for row, size in enumerate(sizes.tolist()):
        assert size == -(-int(lengths[row]) * 100 // round(100 * speed))
        spectrum = np.abs(np.fft.rfft(found[row, :size].numpy() * np.hanning(size), 160000))
        assert spectrum.argmax() / 10 == pytest.approx(1000 * speed, abs=0.5)
        assert not found[row, size:].any()


@settings(max_examples=20, deadline=None)
@given(st.floats(-10, 40), st.lists(st.integers(200, 9000), min_size=1, max_size=4), st.integers(0, 99))
def test_noise_lies_at_the_asked_ratio_to_the_speech_of_each_utterance(folders, snr, sizes, seed):
    lengths = torch.tensor(sizes)
    waves = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(speech(1, seed)[:n]) for n in sizes], batch_first=True)
    found = augmentation(noises=folders["noises"], snr=[snr, snr], share=1.0).corrupt(waves, lengths, seeded(seed))
    for row, size in enumerate(sizes):
        noise = (found[row] - waves[row]).double().numpy()
        ratio = 10 * np.log10(np.mean(waves[row, :size].double().numpy() ** 2) / np.mean(noise[:size] ** 2))
        assert ratio == pytest.approx(snr, abs=0.1)
        assert not noise[size:].any()


def room(folder: Path, *taps: tuple[int, float]) -> str:
    response = np.zeros(3000)
    for place, value in taps:
        response[place] = value
    folder.mkdir()
    soundfile.write(folder / "room.wav", response, 16000, subtype="FLOAT")
    return str(folder)


def test_a_room_without_echo_changes_nothing_and_one_with_an_echo_adds_it(tmp_path):
    lengths = torch.tensor([8000, 2000])
    waves = torch.stack([torch.from_numpy(speech(0.5, row)) * (torch.arange(8000) < lengths[row]) for row in range(2)])
    dry = augmentation(rooms=room(tmp_path / "dry", (37, 0.25)), share=1.0).corrupt(waves, lengths, seeded())
    torch.testing.assert_close(dry, waves, atol=1e-5, rtol=0)
    wet = augmentation(rooms=room(tmp_path / "wet", (37, 0.5), (537, -0.3)), share=1.0)
    wet = wet.corrupt(waves, lengths, seeded())
    for row, size in enumerate(lengths.tolist()):
        before = waves[row, :size].numpy()
        expected = before - 0.6 * np.concatenate([np.zeros(500), before[:-500]])
        expected *= np.abs(before).mean() / np.abs(expected).mean()
        np.testing.assert_allclose(wet[row, :size], expected, atol=1e-4)
        assert not wet[row, size:].any()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(500, 6000), min_size=1, max_size=4), st.integers(1, 5000), st.integers(0, 99))
def test_padding_changes_no_waveform(folders, sizes, more, seed):
    change = augmentation(speeds=[0.9, 1.1], **folders, share=0.7)
    lengths = torch.tensor(sizes)
    waves = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(speech(1, seed)[:n]) for n in sizes], batch_first=True)
    found = []
    for padded in (waves, torch.nn.functional.pad(waves, (0, more))):
        generator = seeded(seed)
        found.append(change.corrupt(*change.speed(padded, lengths, generator), generator))
    size = found[0].shape[1]
    torch.testing.assert_close(found[0], found[1][:, :size], atol=1e-5, rtol=0)
    assert not found[1][:, size:].any()


@pytest.mark.parametrize("kind", ["fbank", "mfcc", "spectrogram", "waveform"])
def test_padding_changes_no_feature(kind):
    extractor = make(plain(configuration(f"features={kind}"), "features")["extractor"])
    sizes = [4000, 9990, 16000]
    waves = [speech(1, n)[:n] for n in sizes]
    waves[1][-5:] = 100  # loudest at its end, where a window of the padding still sees it
    batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    lengths = torch.tensor([1 + n // 160 for n in sizes])
    found = extractor.frames(batch, lengths)
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(found[row, : lengths[row]], extractor(wave), atol=1e-3)


def test_batches_are_functions_of_seed_and_step_and_targets_are_clean(stored, folders):
    everything = folders | {"speeds": [0.9, 1.0, 1.1]}
    one, two = (batcher(stored("fbank"), crop=150, **everything) for _ in range(2))
    two.at(3)
    shapes = set()
    for step in range(8):
        first, second = one.at(step), two.at(step)
        assert torch.equal(first.features, second.features) and torch.equal(first.lengths, second.lengths)
        shapes.add(int(first.lengths.max()))
    assert shapes == {1 + 149 * 160 // 160, 1 + -(-23999 * 10 // 9) // 160, 1 + -(-23999 * 10 // 11) // 160}
    other = batcher(stored("fbank"), crop=150, seed=2, **everything)
    assert not all(torch.equal(one.at(s).features, other.at(s).features) for s in range(3))
    noisy, clean = batcher(stored("fbank"), crop=150, **folders), batcher(stored("fbank"), crop=150)
    for step in range(3):
        batch, expected = noisy.at(step), clean.at(step).features
        torch.testing.assert_close(batch.target, expected)
        changed = (batch.features - expected).abs().amax((1, 2)) > 0.1
        assert 0 < changed.float().mean() < 1


@pytest.mark.parametrize("name", ["masked", "dense"])
def test_an_autoencoder_learns_to_reconstruct_the_clean_features(stored, folders, name):
    module, _ = autoencoder(name, *["autoencoder.encoder.width=16"] * (name == "masked"))
    batch = batcher(stored("fbank"), crop=150, **folders | {"share": 1.0}).at(0)
    assert not torch.equal(loss_of(module, batch), loss_of(module, batch._replace(target=None)))
    first, last = losses(module, batch)
    assert last < 0.99 * first


@given(st.integers(160, 500_000), st.sampled_from([0.5, 0.9, 1.0, 1.05, 1.1, 1.25, 2.0]))
def test_no_utterance_has_fewer_frames_than_ctc_counts_with(samples, speed):
    (least,) = fewest([1 + samples // 160], {"speeds": [speed, 0.9]})
    frames = 1 + -(-samples * 100 // max(100, round(100 * speed))) // 160  # arms that read frozen features keep theirs
    assert frames - 3 <= least <= frames


def test_what_ctc_cannot_align_at_the_fastest_speed_is_left_out_of_every_arm(corpus):
    text = corpus / "mine/train/text"
    lines = text.read_text().splitlines()
    # A second has 101 frames, 26 at stride 4; at speed 1.1 it has 91 or 92, which leaves 23.
    lines[0] = f"{lines[0].split()[0]} {'ab ' * 8}".strip() + " c"
    text.write_text("\n".join(lines) + "\n")
    small = [setting for setting in TINY if setting.startswith("recognizer.")]
    data = ("corpus=kaldi", f"corpus.root={corpus}/mine", "features.store=audio")
    here(corpus, 0, 2, *data, "arm=none", tiny=small)
    for speeds, dropped in (("[1.0]", 0), ("[1.0,1.1]", 1)):
        for arm in ("none", "pca"):
            shutil.rmtree(corpus / "exp", ignore_errors=True)
            here(corpus, 3, 5, *data, f"arm={arm}", f"recognizer.augmentation.speeds={speeds}", tiny=small)
            summary = json.loads(next(corpus.glob("exp/kaldi/*/*/summary.json")).read_text())
            assert summary["health"]["dropped"] == dropped
            speed = "speed 1-1.1, " if arm == "none" and dropped else ""
            assert summary["augmentation"] == speed + "SpecAugment"


def test_what_was_pretrained_without_stored_audio_serves_where_it_is_augmented(corpus):
    small = [setting for setting in TINY if setting.startswith(("recognizer.", "autoencoder."))]
    data = ("corpus=kaldi", f"corpus.root={corpus}/mine", "arm=masked")
    here(corpus, 0, 3, *data, tiny=small)
    (pretrained,) = corpus.glob("exp/pretrain/*/autoencoder.pt")
    (frames,) = corpus.glob("data/*/fbank-*")
    more = (f"unlabeled.features={frames.relative_to(corpus)}", "recognizer.augmentation.speeds=[0.9,1.0,1.1]")
    here(corpus, 2, 5, *data, *more, "features.store=audio", tiny=small)
    assert [pretrained] == list(corpus.glob("exp/pretrain/*/autoencoder.pt"))
    summary = json.loads(next(corpus.glob("exp/kaldi/*/masked-*/summary.json")).read_text())
    assert summary["augmentation"] == "speed 0.9-1.1, SpecAugment"
    with pytest.raises(InputError, match="trained on features fbank-.*, but given fbank-"):  # whose frames are others
        here(corpus, 2, 4, *data, more[0], "features.cmvn=none", tiny=small)


def test_the_table_names_the_augmentation_where_rows_differ(tmp_path):
    def table(**policies: str) -> str:
        cells = [
            cell(tmp_path, arm, seed, errors(5, seed), augmentation=policy)
            for arm, policy in policies.items()
            for seed in (1, 2)
        ]
        return render_markdown(entries(cells))

    assert "augmentation" not in table(none="SpecAugment", masked="SpecAugment")
    found = table(none="speed 0.9-1.1, SpecAugment", pca="SpecAugment")
    assert "| augmentation |" in found and found.count("speed 0.9-1.1, SpecAugment |") == 1


def one_line_each(message: str, *parts: str) -> None:
    lines = message.splitlines()
    assert len(lines) == len(parts) and all(part in line for part, line in zip(parts, lines, strict=True)), message


@pytest.mark.parametrize(
    "stage, arm, training", [(3, "masked", "autoencoder"), (5, "none", "recognizer"), (5, "pca", "recognizer")]
)
def test_what_cannot_be_done_is_said_before_training_begins(tmp_path, folders, stage, arm, training):
    (tmp_path / "empty").mkdir()

    def refused(*given: str) -> str:
        with pytest.raises(InputError) as error:
            here(tmp_path, stage, stage, f"arm={arm}", *(f"{training}.augmentation.{one}" for one in given), tiny=[])
        return str(error.value)

    wrong = refused("speeds=[1.0,3]", "snr=[20,5]", "share=2")
    one_line_each(wrong, "speeds=[1.0, 3]; expected", "snr=[20, 5]; expected", "share=2; expected")
    one_line_each(refused("speeds=1.1"), f"{training}.augmentation.speeds=1.1; expected factors from 0.5 to 2")
    if arm == "pca":  # it reads frames from disk
        return
    found = refused(f"noises={tmp_path}/none", f"rooms={tmp_path}/empty")
    one_line_each(found, "set features.store=audio", "none: no folder", "empty: a folder without audio")
    assert not list(tmp_path.rglob("*.partial"))


def test_every_recording_that_cannot_be_taken_is_listed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([speech(1)] * 2, 1), 16000)
    (tmp_path / "b.wav").write_text("no audio")
    soundfile.write(tmp_path / "c.wav", np.zeros(100), 16000)
    soundfile.write(tmp_path / "d.wav", speech(11), 16000)
    soundfile.write(tmp_path / "e.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(InputError) as error:
        load(str(tmp_path), 16000, longest=10)
    expected = ("2 channel(s)", "b.wav: audio does not decode", "is 0.0, expected sound", "11.0 s, expected", "is nan")
    one_line_each(str(error.value), *expected)


@pytest.fixture(scope="module")
def audio_run(tiny, tmp_path_factory) -> Path:
    """The tiny run's data with archives that store audio, and nothing trained."""
    folder = tmp_path_factory.mktemp("audio")
    shutil.copytree(tiny / "data", folder / "data", symlinks=True)
    here(folder, 2, 2, "arm=none", "features.store=audio")
    return folder


@pytest.mark.parametrize("stage, arm, name", [(3, "masked", "autoencoder"), (5, "none", "recognizer")])
def test_a_training_with_all_of_it_killed_between_checkpoints_ends_in_the_same_bits(
    audio_run, folders, tmp_path, stage, arm, name
):
    given = [f"{name}.augmentation.{key}={value}" for key, value in folders.items()]
    given += [f"{name}.augmentation.speeds=[0.9,1.0,1.1]", "features.store=audio", f"arm={arm}", "seed=1"]
    command = [f"stage={stage}", f"stop_stage={stage}", "logger=csv", *LONGER, *given]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
        (folder / "data").symlink_to(audio_run / "data")
    recipe(calm, *command)
    process = start(killed, *command)
    while not list(killed.glob("exp/**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(killed.glob(f"exp/**/{name}.pt")), "killed too late to show anything"
    recipe(killed, *command)
    assert same(weights(calm, name), weights(killed, name))
    marker = json.loads(next(calm.glob(f"exp/**/{name}.pt")).with_name("done.json").read_text())
    assert sum(Path(path).is_relative_to(folders["noises"]) for path in marker["files"]) == 3


def test_a_training_is_stale_once_its_folder_of_noises_has_another_file(audio_run, folders, tmp_path):
    (tmp_path / "data").symlink_to(audio_run / "data")
    noises = Path(shutil.copytree(folders["noises"], tmp_path / "noises"))
    command = [5, 5, "arm=none", "features.store=audio", f"recognizer.augmentation.noises={noises}"]
    here(tmp_path, *command)
    soundfile.write(noises / "later.wav", speech(0.3, 9), 16000)
    (noises / "later.txt").write_text("no audio")
    here(tmp_path, *command)
    found = [read_marker(path)["files"] for path in sorted(tmp_path.glob("exp/espeak/*/none-*")) if path.is_dir()]
    assert sorted(map(len, found)) == [3, 4]


def test_a_training_keeps_the_precision_that_pytorch_begins_with_and_logs_nothing_of_speechbrain():
    script = (
        "import logging, torch; logging.basicConfig(level=logging.INFO); "
        "before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32; "
        "import lightning_modules.fit, lightning_modules.augmentation; "
        "assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
