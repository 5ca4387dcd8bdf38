"""What bad input gets: a line that names it, a non-zero status, nothing half-written."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local import audio, manifest
from local.errors import InputError
from local.labels import subset
from local.text import aligned, encode_all, feasibility, feasible
from tests.conftest import here, recipe, speech


def mine(folder: Path, *settings: str, status: int = 1) -> str:
    """Stages 0 to 2 on one's own data."""
    return recipe(
        folder, "corpus=kaldi", f"corpus.root={folder / 'mine'}", "logger=csv", "arm=none", "seed=1", *settings,
        status=status, tiny=[],
    )  # fmt: skip


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def spoil_audio(train: Path) -> None:
    (train / "0.wav").unlink()
    (train / "1.wav").write_bytes(b"")
    soundfile.write(train / "2.wav", speech(0.05), 16000)


def spoil_format(train: Path) -> None:
    (train / "0.wav").write_text("no audio at all, but text")
    soundfile.write(train / "1.wav", speech(1), 8000)
    soundfile.write(train / "2.wav", np.stack([speech(1)] * 2, 1), 16000)


def spoil_ids(train: Path) -> None:
    for name in ("wav.scp", "utt2spk", "text"):
        edit(train / name, "s1-0", "s1/../../x")


def spoil_duplicate(train: Path) -> None:
    edit(train / "wav.scp", "s1-1", "s1-0")


def spoil_text(train: Path) -> None:
    edit(train / "text", "s1-1 hello there train\n", "")


def spoil_texts(train: Path) -> None:
    edit(train / "text", "s1-1 hello there train\ns1-2 hello there train\n", "s1-1\ns1-2 \n")


def spoil_command(train: Path) -> None:
    edit(train / "wav.scp", str(train / "0.wav"), f"touch {train}/executed; cat {train}/0.wav |")


def test_tables_may_be_parted_by_tabs_and_lie_in_a_folder_of_any_name(corpus):
    odd = (corpus / "mine").rename(corpus / "été #1, (2)")
    for table in odd.glob("*/*[!v]"):
        lines = table.read_text().replace(f"{corpus}/mine", str(odd)).splitlines()
        table.write_text("".join(line.replace(" ", "\t", 1) + "\n" for line in lines))
    settings = ("corpus=kaldi", f'corpus.root="{odd}"', "arm=none", "seed=1", "logger=csv")
    recipe(corpus, "stage=0", "stop_stage=2", *settings, tiny=[])
    (text,) = corpus.glob("data/kaldi-*/train/text")
    assert text.read_text().splitlines()[0] == "s1-0 HELLO THERE TRAIN"


def test_ones_own_kaldi_directories_go_through(corpus):
    for train in (corpus / "mine/train",):
        edit(train / "wav.scp", str(train / "0.wav"), f"sph2pipe -f wav -p {train}/0.wav |")
    output = mine(corpus, "stop_stage=2", status=0)
    assert re.search(r"train +3 +0 +1 ", output)
    (text,) = corpus.glob("data/kaldi-*/train/text")
    assert text.read_text().splitlines()[0] == "s1-0 HELLO THERE TRAIN"


@pytest.mark.parametrize(
    "spoil, messages",
    [
        (spoil_audio, ["0.wav: unreadable audio (the file is missing)", "1.wav: unreadable audio (the file is empty)",
                       "2.wav: 0.050 s of audio, expected at least 0.1 s"]),
        (spoil_format, ["0.wav: unreadable audio (", "1.wav: 1 channel(s) at 8000 Hz", "2.wav: 2 channel(s) at 16000"]),
        (spoil_ids, ["'s1/../../x' is no safe file name"]),
        (spoil_duplicate, ["wav.scp:2: s1-0 comes twice"]),
        (spoil_text, ["s1-1: empty transcript"]),
        (spoil_texts, ["s1-1: empty transcript", "s1-2: empty transcript"]),
        (spoil_command, ["mine/train/wav.scp: s1-0: 'touch ", "is a command, and commands are not executed"]),
        (shutil.rmtree, ["mine/train: no such folder for corpus.splits.train", "holds: dev, pretrain, test; set"]),
    ],
)  # fmt: skip
def test_prepare_lists_every_bad_file_and_leaves_nothing(corpus, spoil, messages):
    spoil(corpus / "mine" / "train")
    output = mine(corpus, "stop_stage=1")
    for message in messages:
        assert message in output
    assert "Traceback" not in output
    assert not list(corpus.glob("data/*/train")) and not (corpus / "mine/train/executed").exists()


def test_features_refuse_silence_and_keep_the_data_directory(corpus):
    soundfile.write(corpus / "mine/dev/1.wav", np.zeros(16000), 16000)
    output = mine(corpus, "stop_stage=2")
    assert "dev/1.wav: all 16000 samples are zero" in output and "Traceback" not in output
    assert list(corpus.glob("data/kaldi-*/dev/wav.scp")) and not list(corpus.glob("data/kaldi-*/fbank-*"))


@pytest.mark.parametrize("corpus", ["kaldi", "librispeech"])
def test_a_mistyped_root_leaves_nothing(tmp_path, corpus):
    for more in ([], ["dry_run=true"]):
        with pytest.raises(InputError, match="/mien/data: no such folder; .*set corpus.root to"):
            here(tmp_path, 0, 2, f"corpus={corpus}", f"corpus.root={tmp_path}/mien/data", *more, tiny=[])
    assert not list(tmp_path.iterdir())


def test_a_stage_without_its_input_names_the_stage_to_run(tmp_path):
    output = mine(tmp_path, "stage=5", "stop_stage=5")
    assert "run stage 1 (prepare) first" in output and "Traceback" not in output


def test_a_character_outside_the_units_names_its_utterance(corpus):
    edit(corpus / "mine/train/text", "s1-2 hello there", "s1-2 he said: 42")
    output = mine(corpus, "stop_stage=5")
    assert "s1-2: '2' '4' ':' in its transcript" in output and "Traceback" not in output
    assert not list(corpus.glob("exp/kaldi/*/none-*/"))


@pytest.mark.parametrize("entry", ["rm -rf / |", "cat a.wav |", "flac -c -d -s a.flac; rm b |", "sox a.wav -t wav - |"])
def test_a_command_in_wav_scp_is_refused(entry):
    with pytest.raises(InputError, match="commands are not executed"):
        audio.path_of(entry)


@pytest.mark.parametrize(
    "entry, path",
    [
        ("/a/b.flac", "/a/b.flac"),
        ("flac -c -d -s /a/b.flac |", "/a/b.flac"),
        ("/kaldi/tools/sph2pipe_v2.5/sph2pipe -f wav -p -c 1 /a/b.sph |", "/a/b.sph"),
    ],
)
def test_the_two_standard_commands_are_read_as_their_files(entry, path):
    assert audio.path_of(entry) == path


@pytest.mark.parametrize("name, head", [("a.raw", b"12345678"), ("a\0.wav", None), ("a.flac", b"fLaC")])
def test_what_libsndfile_cannot_even_try_is_unreadable_audio(tmp_path, name, head):
    if name == "a.flac":  # at 0 Hz
        soundfile.write(tmp_path / name, speech(1), 16000)
        head = bytearray((tmp_path / name).read_bytes())
        head[18:20], head[20] = bytes(2), head[20] & 15
    if head:
        (tmp_path / name).write_bytes(head)
    with pytest.raises(InputError, match="unreadable audio"):
        audio.header(tmp_path / name)
    with pytest.raises(InputError, match="does not decode"):
        audio.read(tmp_path / name, 16000)


def test_more_labels_than_there_are_is_refused():
    utterances = [manifest.Utterance(f"a-{i}", "a", "x", 10.0, "HI") for i in range(3)]
    with pytest.raises(InputError, match="1 h asked for, but there are 0.008 h"):
        subset(utterances, 1, 0)


def test_feasibility_counts_the_blanks_between_repeats():
    assert feasible([1, 2, 2], 4) and not feasible([1, 2, 2], 3)


def test_feasibility_is_told_for_each_stride_that_a_front_end_leaves():
    labels, frames = [[1, 2, 3], [1, 1, 1]], [12, 16]
    assert feasibility(labels, frames, 1).endswith(
        "cannot align 0 at stride 1, 0 at stride 2, 1 at stride 4, 2 at stride 8"
    )
    assert feasibility(labels, [3, 4], 4).endswith("cannot align 1 at stride 4, 2 at stride 8")
    assert aligned(labels, frames, 4) == [0]


def test_text_outside_the_units_lists_every_utterance():
    utterances = [manifest.Utterance(f"a-{i}", "a", "x", 1.0, text) for i, text in enumerate(("AB", "A-B", "Ä"))]
    with pytest.raises(InputError) as error:
        encode_all(utterances, "AB", {})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["a-1", "a-2"]


def test_a_speaker_of_test_in_another_split_is_refused(corpus):
    for name in ("wav.scp", "utt2spk", "text"):
        edit(corpus / "mine" / "test" / name, "s3", "s1")
    output = mine(corpus, "stop_stage=1")
    assert "train and test share 3 ids, such as s1-0" in output and "share 1 speaker, such as s1" in output
    assert not list(corpus.glob("data/kaldi-*"))


def test_a_test_transcript_outside_the_units_is_found_before_training(corpus):
    edit(corpus / "mine/test/text", "s3-1 hello there", "s3-1 room 101")
    assert "s3-1: '0' '1' in its transcript" in mine(corpus, "stop_stage=5")


@pytest.mark.parametrize(
    "settings, message",
    [
        (["recognizer.stride=6"], "recognizer.stride=6, but the front end strides by 1"),
        (["arm=masked", "autoencoder.stride=8", "stage=3"], "recognizer.stride=4, but the front end strides by 8"),
        (["arm=masked", "recognizer.time_mask=1", "stage=3"], "recognizer.time_mask=1: expected a share, 0 or more"),
        (["recognizer.layer_decay=-1"], "recognizer.layer_decay=-1: expected a number above 0"),
        (["recognizer.learning_rate=1e400"], "recognizer.learning_rate=inf: expected a number, 0 or more"),
        (["recognizer.span=20.5"], "recognizer.span=20.5: expected a whole number, 1 or more"),
        (["recognizer.average=1"], "recognizer.average=1: expected a share, 0 or more and below 1"),
        (["recognizer.precision=bf16"], "recognizer.precision=bf16: expected one of 32-true"),
        (["recognizer.updates=-5"], "recognizer.updates=-5: expected a whole number, 0 or more"),
        (["encoder@recognizer.encoder=conformer", "recognizer.encoder.kernel=-1"], "recognizer.encoder.kernel=-1: exp"),
        (["arm=masked", "autoencoder.bottleneck=0", "stage=3"], "autoencoder.bottleneck=0: expected a whole number"),
        (["arm=dense", "autoencoder.widths=[64,-1]", "stage=3"], "autoencoder.widths=[64, -1]: expected a whole"),
        (
            ["arm=masked", "autoencoder=predictive", "autoencoder.shift=5000", "stage=3"],
            "autoencoder.shift=5000: expec",
        ),
        (
            ["arm=masked", "autoencoder=waveform", "stage=3"],
            "autoencoder=waveform reads samples, 10 ms of them a frame",
        ),
        (
            ["arm=masked", "autoencoder=clustered", "autoencoder.clusters=9999", "stage=3"],
            "autoencoder.clusters=9999: e",
        ),
        (["units.inventory=[A,B,A]"], "units.inventory has 'A' twice"),
        (["units.scoring=null"], "units.scoring=None: expected a symbol for each"),
        (["recognizer.augmentation.noises=[a]"], "recognizer.augmentation.noises=['a']; expected the name of a folder"),
        (["recognizer.stride=1024"], "recognizer.stride=1024: CTC can align none of 17"),
        (["recognizer.best=per"], "recognizer.best=per: expected wer or cer"),
        (["arm=none", "recognizer.frontend=finetuned"], "arm none has no encoder to fine-tune"),
        (["arm=masked", "autoencoder=none", "stage=3", "stop_stage=3"], "this arm needs a model"),
        (
            ["arm=dense", "autoencoder.activation=x", "stage=3", "stop_stage=3"],
            "autoencoder.activation=x: expected relu",
        ),
        (["arm=pca", "recognizer.frontend=finetuned"], "frontend=finetuned: pca learns by no gradients; use frozen"),
        (["arm=masked", "unlabeled.split=test", "stage=3"], "unlabeled.split=test: errors are measured on that"),
        (["decoder=lexicon", "decoder.lm_weight=1.0"], "decoder.lm_weight=1.0: expected a list, as [1.0]"),
        (["recognizer.time_mask=null"], "CTC: CTC.__init__() missing 1 required keyword-only argument: 'time_mask'"),
        (["recognizer.encoder.layers=0"], "encoder.layers=0: expected a whole number, 1 or more"),
        (["labels.hours=0"], "labels.hours=0: expected a positive number, or all"),
        (["labels.seed=null"], "labels.seed=None: expected a whole number, 0 or more"),
        (["seed=1.5"], "seed=1.5: expected a whole number, 0 or more"),
        (["labels.hypotheses=5", "labels.hours=0.004"], "labels.hypotheses=5: no such file"),
        (["labels.hypotheses=5"], "labels.hypotheses=5 is for what has no labels, and labels.hours=all leaves nothing"),
        (["decoder.splits=null", "stop_stage=6"], "decoder.splits=None: expected dev among them"),
        (["arm=masked", "labels.hours=5", "stage=3"], "5 h asked for, but there are"),
        (["arm=masked", "units=phones48", "stage=3"], "expected only units.inventory=['aa',"),
        (["arm=external", "stage=4"], "autoencoder.scp=None: expected a feats.scp with all utterances"),
        (["corpus.name=../x", "stage=1"], "corpus.name=../x: expected a name for folders"),
        (["labels.hours=most"], "labels.hours='most': expected a positive number, or all"),
        (["arm=masked", "unlabeled.hours=most", "stage=3"], "unlabeled.hours='most': expected a positive number"),
        (["publish=no"], "publish=no: expected true or false"),
        (["arm=masked", "decoder.nbest=0", "stage=3", "stop_stage=7"], "decoder.nbest=0: expected how many"),
        (["corpus.root=/a,/b"], "corpus.root=/a,/b: one data directory; give each a corpus.name"),
        (["corpus.snr=[25,5]"], "corpus.snr=[25, 5]: expected two numbers of dB, the lower first"),
        (["corpus.minutes=5"], "corpus.minutes=5: expected numbers for pretrain, train, dev, test alone"),
        (["recognizer.updates=many"], "recognizer.updates=many: expected a number"),
        (["trainer.accelerator=tpu"], "no such device is found"),
        (["corpus.accents=9"], "corpus.accents: found 9, expected 1 to 8"),
        (["corpus.splits.train=[a]"], "Could not override 'corpus.splits.train'"),
        (["corpus.snr=[5"], "'corpus.snr=[5' cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_and_leaves_nothing(tiny, tmp_path, settings, message):
    (tmp_path / "data").symlink_to(tiny / "data")
    if settings[0].startswith(("corpus.accents", "corpus.snr=[2", "corpus.minutes")):
        settings = [*settings, "stage=0", "stop_stage=0"]
    output = recipe(tmp_path, "stage=5", "stop_stage=5", "arm=none", "seed=1", "logger=csv", *settings, status=1)
    assert f"error: {message}" in output or message in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not list(tmp_path.glob("exp/**/*.partial")) and not list(tiny.glob("data/audio/*.partial"))
    assert not list(tmp_path.glob("exp/pretrain/*/done.json")), "refused after hours of pretraining"
