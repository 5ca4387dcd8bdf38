"""Using a trained recognizer: transcripts and word times of audio files, and ONNX."""

import itertools
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from lightning_modules import checkpoint, standalone
from local import export, hypotheses, transcribe
from local.errors import InputError
from local.manifest import read_table
from local.text import decode, words
from local.word_times import align, times
from tests.conftest import REPOSITORY, TINY, borrow, here, speech
from tests.test_lexicon import needs_kenlm


@pytest.fixture(scope="module")
def used(tiny, tmp_path_factory) -> Path:
    """A folder with recognizers of random weights, which write nonsense that any change of their input changes."""
    folder = borrow(tiny, tmp_path_factory.mktemp("used"))
    shutil.copytree(tiny / "exp/pretrain", folder / "exp/pretrain", symlinks=True)
    for arm in ("none", "masked", "masked_frozen"):
        here(folder, 3, 6, f"arm={arm}", "recognizer.updates=0")
    return folder


def made(folder: Path, arm: str) -> Path:
    """The directory of an arm's recognizer."""
    (directory,) = folder.glob(f"exp/espeak/*/{arm}-*")
    return directory


def dev(folder: Path) -> list[str]:
    """The audio files of dev."""
    (wav,) = folder.glob("data/espeak-*/dev/wav.scp")
    return [str(folder / path) for path in read_table(wav).values()]


def run(capsys, monkeypatch, module, *arguments) -> tuple[int, str, str]:
    """Status and output of a command, in this process, which has imported already what takes seconds."""
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
    try:
        module.main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            return 1, "", ended.code
        return int(ended.code or 0), *capsys.readouterr()
    return 0, *capsys.readouterr()


def test_a_long_hypothesis_is_aligned_where_its_labels_are():
    labels = [1 + i % 3 for i in range(200)]
    frames = np.full((600, 4), -9.0)
    frames[:, 0] = -0.1
    frames[1::3, 0], frames[np.arange(1, 600, 3), labels] = -9, -0.1  # a blank, a label, a blank
    assert align(frames, labels) == [(place, place) for place in range(1, 600, 3)]


@pytest.mark.parametrize("arm", ["none", "masked", "masked_frozen"])
def test_a_file_of_dev_gives_the_hypothesis_of_stage_6(used, capsys, monkeypatch, tmp_path, arm):
    status, output, _ = run(capsys, monkeypatch, transcribe, made(used, arm), *dev(used))
    (tmp_path / "hyp").write_text(output)
    (stage,) = made(used, arm).glob("greedy-*/dev/text")
    expected = hypotheses.read(stage)
    assert status == 0 and all(expected.values()) and len(set(expected.values())) > 5
    assert hypotheses.read(tmp_path / "hyp") == expected


@needs_kenlm
def test_with_the_language_model_of_stage_6_too(used, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(used)
    for by_itself in (False, True):  # then with no more than what its command line says
        prior = "decoder.prior_weight=[0.0]" if by_itself else "decoder.prior_weight=[0.6]"
        weak = "decoder.lm_weight=[0.5]"  # or nonsense has no word that is worth its price
        here(used, 6, 6, "arm=masked", "recognizer.updates=0", "decoder=lexicon", prior, weak)
        stage = max(made(used, "masked").glob("lexicon-*"), key=lambda path: path.stat().st_mtime)
        chosen = json.loads((stage / "tuning.json").read_text())["dev"][0]
        (lm,) = used.glob("exp/lm/ngram-*")
        weights = ("--lm-weight", chosen["lm_weight"], "--word-score", chosen["word_score"])
        options = ("--lm", lm, *weights) if by_itself else ("--decode", stage)
        _, output, _ = run(capsys, monkeypatch, transcribe, made(used, "masked"), *dev(used), *options)
        (tmp_path / "hyp").write_text(output)
        expected = hypotheses.read(stage / "dev/text")
        assert any(expected.values()) and hypotheses.read(tmp_path / "hyp") == expected


def test_cmvn_is_global_by_the_statistics_saved_and_for_speakers_by_file_which_is_told(used, tmp_path, caplog):
    content = checkpoint.read(made(used, "none") / "recognizer.pt")
    samples = torch.from_numpy(speech(1))
    by_itself = standalone.load(made(used, "none"))(samples)
    features = standalone.load(made(used, "none")).extractor.frames(samples[None], torch.tensor([101]))[0]
    own = [features.mean(0), features.var(0, correction=0).sqrt()]
    for cmvn, statistics in (("global", own), ("speaker", None)):
        content["input"] |= {"cmvn": cmvn, "statistics": statistics}
        checkpoint.write(tmp_path / f"{cmvn}.pt", content)
        assert torch.allclose(standalone.load(tmp_path / f"{cmvn}.pt")(samples), by_itself, atol=1e-4)
    (told,) = caplog.messages
    assert "speaker.pt" in told and "each file is taken for a speaker of its own" in told


def test_another_rate_is_resampled_and_a_name_with_a_space_survives(used, capsys, monkeypatch, tmp_path):
    samples, rate = soundfile.read(dev(used)[0])
    soundfile.write(tmp_path / "at 48.flac", resample_poly(samples, 3, 1), 3 * rate)
    soundfile.write(tmp_path / "at 16.wav", samples, rate)
    files = [tmp_path / "at 48.flac", tmp_path / "at 16.wav"]
    status, output, _ = run(capsys, monkeypatch, transcribe, made(used, "masked"), *files, "--format", "json")
    resampled, original = json.loads(output)
    assert status == 0 and resampled["duration"] == original["duration"]
    (tmp_path / "hyp").write_text(run(capsys, monkeypatch, transcribe, made(used, "masked"), *files)[1])
    assert hypotheses.read(tmp_path / "hyp") == {"at_48": resampled["text"], "at_16": original["text"]}


def test_json_and_ctm_tell_when_each_word_was_said(used, capsys, monkeypatch, tmp_path):
    command = (capsys, monkeypatch, transcribe, made(used, "masked"), *dev(used))
    found = json.loads(run(*command, "--format", "json")[1])
    for one in found:
        assert [each["word"] for each in one["words"]] == one["text"].split()
        bounds = [time for each in one["words"] for time in (each["begin"], each["end"])]
        assert bounds == sorted(bounds) and bounds[0] >= 0 and bounds[-1] <= one["duration"]
        assert all(each["end"] > each["begin"] for each in one["words"])
    (tmp_path / "hyp.ctm").write_text(run(*command, "--format", "ctm")[1])
    assert hypotheses.read(tmp_path / "hyp.ctm") == {Path(one["file"]).stem: one["text"] for one in found}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2], [2, 1, 1]])
def test_an_alignment_is_the_best_of_all_paths_that_spell_the_labels(labels, seed):
    frames = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(1).numpy()
    scores = {}
    for path in itertools.product(range(3), repeat=5):
        if [label for label, _ in itertools.groupby(path) if label] == labels:
            scores[path] = sum(frames[t, label] for t, label in enumerate(path))
    best = max(scores, key=scores.get)
    runs, at = [], 0
    for label, run_of in itertools.groupby(best):
        size = len([*run_of])
        runs += [(at, at + size - 1)] if label else []
        at += size
    assert align(frames, labels) == runs


def test_words_have_their_times_whatever_the_units_are():
    def frames(path: str, units) -> np.ndarray:
        best = [0 if one == "." else 1 + units.index(one) for one in path.split("|")]
        return np.log(np.eye(1 + len(units))[best] + 1e-3)

    characters, pieces, phones = " AB", ["▁A", "B", "▁", "A"], ["sil", "aa"]
    found = times(frames(".|A|A|B| |.|A|.", characters), "AB A", characters, 0.04, 0.3)
    assert [word for word, _, _ in found] == ["AB", "A"]
    assert [time for _, *both in found for time in both] == pytest.approx([0.02, 0.14, 0.22, 0.26])
    found = times(frames("▁A|B|.|▁|A|.", pieces), "AB A", pieces, 0.04, 1)
    assert [word for word, _, _ in found] == ["AB", "A"] and found[0][1] == 0
    assert times(frames("sil|aa", phones), "sil aa", phones, 1, 1.2) == [("sil", 0, 0.5), ("aa", 0.5, 1.2)]
    found = times(frames(".|A|.|.|A|.", characters), "A A", characters, 1, 6)  # what a language model chose
    assert [word for word, _, _ in found] == ["A", "A"] and found[1][1] == pytest.approx(3.5)
    assert times(frames(".|.", characters), "", characters, 1, 2) == []
    with pytest.raises(InputError, match="'AB' has more units than its 1 frames, so its words have no times"):
        times(frames("▁A", pieces), "AB", ["▁A", "B"], 1, 1)
    assert decode([1, 2, 3], characters) == "AB" and words([1, 2, 3], characters) == [[1, 2]]


def test_each_bad_file_is_a_line_and_the_others_are_transcribed(used, capsys, monkeypatch, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.txt").write_text("no audio\n")
    soundfile.write(tmp_path / "short.wav", speech(0.05), 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([speech(1), speech(1)], 1), 16000)
    soundfile.write(tmp_path / "good.wav", speech(1), 16000)
    names = ("empty.wav", "notes.txt", "short.wav", "silent.wav", "stereo.wav", "missing.wav", "good.wav")
    status, output, errors = run(
        capsys, monkeypatch, transcribe, made(used, "none"), *(tmp_path / name for name in names)
    )
    assert status == 1 and output.startswith("good\t") and output.count("\n") == 1
    said = ("the file is empty", "unreadable audio", "0.050 s of audio", "are zero", "2 channel(s)", "is missing")
    for name, line, text in zip(names, errors.splitlines(), said, strict=False):
        assert line.startswith(f"error: {tmp_path / name}: ") and text in line
    assert len(errors.splitlines()) == len(said)


def test_what_cannot_be_used_by_itself_is_refused_in_a_line(used, capsys, monkeypatch, tmp_path):
    content = checkpoint.read(made(used, "none") / "recognizer.pt")
    checkpoint.write(tmp_path / "old.pt", {key: value for key, value in content.items() if key != "input"})
    checkpoint.write(tmp_path / "external.pt", content | {"input": None})
    foreign = content["input"] | {"extractor": {"_target_": "local.extractors.np.load", "file": "x"}}
    checkpoint.write(tmp_path / "foreign.pt", content | {"input": foreign})
    (tmp_path / "cut.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:1000])
    file = dev(used)[0]
    for name, message in {
        "old.pt": "run stage 5 (finetune) again",
        "external.pt": "features of another toolkit",
        "foreign.pt": "local.extractors.np.load: no class of local.extractors",
        "cut.pt": "no readable checkpoint",
        "missing.pt": "not there, expected recognizer.pt of stage 5",
    }.items():
        status, _, error = run(capsys, monkeypatch, transcribe, tmp_path / name, file)
        assert status == 1 and message in error and "\n" not in error
    for options, message in {
        ("--lm", tmp_path): f"{tmp_path}/words: not there",
        ("--decode", tmp_path): "no finished folder of stage 6",
    }.items():
        status, _, error = run(capsys, monkeypatch, transcribe, made(used, "none"), file, *options)
        assert status == 1 and message in error and "\n" not in error
    (theirs,) = made(used, "masked").glob("greedy-*")
    status, _, error = run(capsys, monkeypatch, transcribe, made(used, "none"), file, "--decode", theirs)
    assert status == 1 and f"{theirs}: what another recognizer than" in error
    status, _, error = run(capsys, monkeypatch, transcribe, made(used, "none"), file, file)
    assert status == 1 and "two files of one name" in error


@needs_kenlm
def test_a_damaged_language_model_or_prior_is_refused_in_a_line(used, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(used)
    here(used, 6, 6, "arm=none", "recognizer.updates=0", "decoder=lexicon")
    (stage,) = (path.parent for path in made(used, "none").glob("lexicon-*/done.json"))
    (model,) = used.glob("exp/lm/ngram-*")
    cut, decoded = (Path(shutil.copytree(source, tmp_path / source.name)) for source in (model, stage))
    whole = (model / "lm.bin").read_bytes()

    def refused(*options) -> str:
        status, _, error = run(capsys, monkeypatch, transcribe, made(used, "none"), dev(used)[0], *options)
        assert status == 1 and "\n" not in error
        return error

    (cut / "lm.bin").write_bytes(whole[:-20])
    assert f"{cut}/lm.bin: is not as stage 6 wrote it" in refused("--lm", cut)
    (cut / "done.json").unlink()
    (cut / "lm.bin").write_bytes(whole[:100])
    assert f"{cut}/lm.bin: KenLM cannot read it" in refused("--lm", cut)
    (decoded / "prior.json").write_text("[0.5, 0.5]")
    assert "prior of 2 numbers, expected one for blank and each of" in refused("--decode", decoded)
    (decoded / "prior.json").unlink()
    assert "prior.json: not there, or cut; run stage 6 again" in refused("--decode", decoded)


def test_nothing_but_a_file_is_replaced_by_an_export(used, capsys, monkeypatch, tmp_path):
    checkpoint = shutil.copy(made(used, "none") / "recognizer.pt", tmp_path / "copy.pt")
    before = Path(checkpoint).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "pipe", checkpoint):
        status, _, error = run(capsys, monkeypatch, export, checkpoint, out)
        assert status == 1 and error.startswith(f"error: {out}: expected the name of the file to write")
    assert Path(checkpoint).read_bytes() == before and {path.name for path in tmp_path.iterdir()} == {"copy.pt", "pipe"}


def test_a_checkpoint_may_name_no_class_that_a_module_of_ours_merely_imports():
    for target in ("lightning_modules.fit.shutil.rmtree", "lightning_modules.fit.Path", "lightning_modules.none.At"):
        with pytest.raises(InputError, match=f"{target}: no class of lightning_modules"):
            checkpoint.build({"_target_": target})


def test_a_codebook_is_exported_too(tiny, capsys, monkeypatch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = borrow(tiny, tmp_path)
    here(
        folder,
        3,
        5,
        "arm=masked",
        "autoencoder=quantized",
        "recognizer.updates=0",
        tiny=[*TINY, "autoencoder.updates=0"],
    )
    assert run(capsys, monkeypatch, export, made(folder, "masked"), tmp_path / "a.onnx")[0] == 0
    samples, _ = soundfile.read(dev(folder)[0], dtype="float32")
    with torch.inference_mode():
        expected = standalone.load(made(folder, "masked"))(torch.from_numpy(samples)).numpy()
    (found,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"samples": samples})
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4


def test_onnx_gives_the_same_log_probabilities_at_any_length(used, capsys, monkeypatch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "masked.onnx"
    status, output, _ = run(capsys, monkeypatch, export, made(used, "masked"), out)
    assert status == 0 and output.startswith(f"{out}: ") and [*tmp_path.iterdir()] == [out]
    session = onnxruntime.InferenceSession(out)
    told = session.get_modelmeta().custom_metadata_map
    recognizer = standalone.load(made(used, "masked"))
    assert told["sample_rate"] == "16000" and math.isclose(float(told["frame_shift"]), 0.04)
    assert json.loads(told["units"]) == [*recognizer.recognizer.units]
    samples, _ = soundfile.read(dev(used)[0], dtype="float32")
    for size in (len(samples), 16000, 12345, 1601, 1600):
        with torch.inference_mode():
            expected = recognizer(torch.from_numpy(samples[:size])).numpy()
        (found,) = session.run(None, {"samples": samples[:size]})
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4


def test_without_onnx_the_command_to_install_it_is_named(used, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "NEEDED", ("onnx_that_is_not_there",))
    status, _, error = run(capsys, monkeypatch, export, made(used, "none"), tmp_path / "a.onnx")
    pinned = (REPOSITORY / "tests/requirements.txt").read_text().splitlines()
    named = error.partition("; pip install ")[2].split()
    assert status == 1 and len(named) == 2 and set(named) <= set(pinned) and not [*tmp_path.iterdir()]
    monkeypatch.undo()
    status, _, error = run(capsys, monkeypatch, export, made(used, "none"), tmp_path / "none/a.onnx")
    assert status == 1 and "no such folder" in error
