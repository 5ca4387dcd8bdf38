"""The whole recipe, from audio to verdict, as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kaldiio
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from local.config import CONF
from local.run import dev_wer
from tests.conftest import REPOSITORY, TINY, borrow, recipe, whole


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and mtime of every file that is no log."""
    return {
        str(p): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file() and "log" not in p.parts and not p.name.endswith(".lock") and p.name != "output.txt"
    }


def results(folder: Path, report: str = "report") -> list[dict]:
    """The content of results.json."""
    return json.loads((folder / "exp/espeak" / report / "results.json").read_text())


def test_it_ends_in_a_table_that_compares_every_arm_with_the_baseline(tiny):
    (entry,) = results(tiny)
    assert [(a["arm"], a["frontend"]) for a in entry["arms"]] == [
        ("none", "frozen"),
        ("dense", "frozen"),
        ("masked", "finetuned"),
    ]
    assert {(c["baseline"], c["arm"]) for c in entry["comparisons"]} == {("none", "masked"), ("none", "dense")}
    assert all([s["seed"] for s in a["seeds"]] == [1, 2] for a in entry["arms"])
    output = (tiny / "output.txt").read_text()
    assert "masked against none" in output and output.rstrip().endswith("exp/espeak/report/RESULTS.md")


def test_every_arm_sees_the_same_frame_rate_labels_and_dropped_utterances(tiny):
    summaries = [json.loads(p.read_text()) for p in (tiny / "exp/espeak").glob("labels-*/*/summary.json")]
    assert len(summaries) == 6
    assert len({(s["health"]["dropped"], s["updates"]) for s in summaries}) == 1


def test_the_bottleneck_is_an_archive_that_kaldiio_reads_at_its_own_frame_rate(tiny, monkeypatch):
    for name, stride in (("masked", 4), ("dense", 1)):
        (scp, *_) = sorted((tiny / "exp/pretrain").glob(f"{name}-*/bottleneck/*/dev/feats.scp"))
        (features,) = (tiny / "data").glob("espeak-*/fbank-*/dev/feats.scp")
        shift = float((scp.parent / "frame_shift").read_text())
        assert shift == pytest.approx(0.01 * stride)
        monkeypatch.chdir(tiny)
        frames = kaldiio.load_scp(str(features))
        for key, codes in kaldiio.load_scp(str(scp)).items():
            assert codes.shape == (-(-len(frames[key]) // stride), 64)
        for table in ("feats.scp", "utt2spk", "utt2num_frames"):  # as Kaldi wants them
            lines = (scp.parent / table).read_bytes().splitlines()
            assert lines == sorted(lines) and len(lines) > 3


def test_a_second_run_changes_no_file_but_logs(own):
    before = files(own)
    output = whole(own, "arm=none,masked,dense", "seed=1,2")
    assert files(own) == before
    assert "done already" in output and "masked against none" in output


def test_a_dry_run_names_what_one_changed_setting_would_redo_and_does_nothing(own):
    before = files(own)
    output = recipe(
        own, "stage=3", "stop_stage=4", "arm=none,masked", "seed=1", "autoencoder.bottleneck=32", "dry_run=true"
    )
    assert [line.split()[:4] for line in output.splitlines()] == [
        ["to", "run", "3", "pretrain"],
        ["to", "run", "4", "bottleneck"],
    ]
    output = recipe(own, "stage=5", "stop_stage=7", "arm=none,masked", "seed=1", "recognizer.thaw=0", "dry_run=true")
    assert [line.split()[0] for line in output.splitlines()] == ["done"] * 6
    assert files(own) == before


def test_three_budgets_times_three_seeds_of_one_arm_make_three_pretrainings(tiny):
    output = recipe(
        tiny, "stage=3", "stop_stage=3", "arm=masked", "seed=1,2,3", "labels.hours=0.1,0.2,0.3", "dry_run=true"
    )
    assert len({line.split()[-3] for line in output.splitlines()}) <= 3
    assert len(output.splitlines()) == 3


def test_a_setting_that_an_arm_lacks_leaves_that_arm_as_one_cell(tiny):
    output = recipe(
        tiny, "stage=5", "stop_stage=5", "arm=none,masked", "seed=1", "autoencoder.bottleneck=32,64", "dry_run=true"
    )
    arms = [line.split("labels-all-0/")[1].split("-")[0] for line in output.splitlines()]
    assert sorted(arms) == ["masked", "masked", "none"]
    output = recipe(tiny, "stage=5", "stop_stage=5", "arm=masked", "seed=1", "autoencoder.codes=64,128", "dry_run=true")
    assert "autoencoder.codes=64: no arm here has such a setting, so it does nothing" in output
    assert output.count(" 5 finetune ") == 1


def test_an_encoder_is_chosen_on_the_command_line_and_leaves_an_arm_without_one_as_it_is(tiny):
    encoders = "encoder@autoencoder.encoder=conformer,transformer"
    output = recipe(tiny, "stage=5", "stop_stage=5", "arm=none,masked", "seed=1", encoders, "dry_run=true")
    arms = [line.split("labels-all-0/")[1].split("-")[0] for line in output.splitlines()]
    assert sorted(arms) == ["masked", "masked", "none"]


def test_weights_do_not_depend_on_how_many_trainings_run_side_by_side(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    recipe(folder, "stage=3", "stop_stage=5", "arm=none,masked", "seed=1", "machine.jobs=1", "logger=csv")
    made = sorted(path.relative_to(folder) for path in folder.glob("exp/**/*.pt"))
    assert [path.name for path in made].count("recognizer.pt") == 2 and len(made) == 3
    for path in made:
        expected, found = (torch.load(root / path, weights_only=True)["state"] for root in (tiny, folder))
        assert all(torch.equal(expected[key], found[key]) for key in expected | found)


def trainings(folder: Path, *settings: str) -> list[str]:
    """The directories that stage 5 of a sweep would make."""
    lines = recipe(folder, "stage=5", "stop_stage=5", "dry_run=true", *settings).splitlines()
    return [next(word for word in line.split() if "labels-all-0/" in word) for line in lines]


def test_recognizers_that_wait_for_no_front_end_are_trained_beside_pretraining(tiny, tmp_path):
    asked = ("arm=masked,none", "seed=3", "hydra/launcher=basic", "logger=csv")
    output = recipe(borrow(tiny, tmp_path), "stage=3", "stop_stage=5", *asked)
    assert output.index("[none seed=3] finetune: done") < output.index("[masked seed=3] finetune:")
    assert output.count("finetune: done in") == 2 and "done already" not in output


def test_every_arm_gets_the_same_number_of_trials_on_a_seed_that_no_report_uses(tmp_path):
    made = [path.split("/")[-1].split("-")[0] for path in trainings(tmp_path, "sweep=tune")]
    assert {arm: made.count(arm) for arm in made} == {"none": 8, "random": 8, "masked": 8}
    sweeps = {p.stem: yaml.safe_load(p.read_text()) for p in sorted((CONF / "sweep").glob("*.yaml"))}
    tuned = str(sweeps["tune"]["hydra"]["sweeper"]["params"]["seed"])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        splits = {name: list(compose("config", [f"sweep={name}"]).decoder.splits) for name in sweeps}
    choosing = {name for name in sweeps if splits[name] == ["dev"]}
    known = {"bottleneck", "ideas", "learning_rate", "masking", "objectives", "optuna", "regularization", "tune"}
    assert choosing == known | {"self_training"}
    for name, sweep in sweeps.items():
        params = sweep["hydra"]["sweeper"]["params"]
        for product in params if isinstance(params, list) else [params]:
            seeds = str(product.get("seed", sweep.get("seed"))).split(",")
            assert seeds == [tuned] if name in choosing else tuned not in seeds


def test_the_sweep_over_arms_holds_every_control_once_a_seed(tmp_path):
    made = trainings(tmp_path, "sweep=arms", "seed=1")
    arms = [path.split("/")[-1].rpartition("-")[0] for path in made]
    assert sorted([*arms, "external"]) == sorted(path.stem for path in (CONF / "arm").glob("*.yaml"))


def test_random_follows_every_override_of_the_pretrained_arm_and_stays_untrained():
    overrides = ["autoencoder.bottleneck=32", "autoencoder.updates=70", "recognizer.updates=5", "unlabeled.hours=2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        masked, random = (compose("config", [f"arm={arm}", *overrides]) for arm in ("masked", "random"))
    assert {k for k in masked.autoencoder if masked.autoencoder[k] != random.autoencoder[k]} == {"trained"}
    assert random.unlabeled == masked.unlabeled
    tuned = {"learning_rate", "frontend_rate"}  # for each arm, in equally many trials
    assert {k for k in masked.recognizer if masked.recognizer[k] != random.recognizer[k]} <= tuned
    assert random.dirs.pretrain != masked.dirs.pretrain


def test_a_cell_without_a_sweep_runs_in_one_process_and_gives_its_dev_wer(tiny, monkeypatch):
    command = [sys.executable, "-m", "local.run", *TINY, "stage=0", "stop_stage=7", "arm=masked", "seed=1"]
    done = subprocess.run(
        command, cwd=tiny, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("done already") == 8
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*TINY, "arm=masked", "seed=1"])
    (entry,) = results(tiny)
    monkeypatch.chdir(tiny)
    assert dev_wer(cfg) == pytest.approx(entry["arms"][-1]["seeds"][0]["dev_wer"], abs=0.005)


def test_an_offline_wandb_run_holds_the_values_that_are_on_disk(tiny):
    (directory, *_) = sorted((tiny / "exp/espeak").glob("labels-*/masked-*"))
    history = json.loads((directory / "history.json").read_text())
    (run,) = directory.glob("wandb/offline-run-*")
    command = ["wandb", "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    logged: dict[int, dict] = {}
    for item in (line["history"]["item"] for line in map(json.loads, lines) if line["type"] == "history"):
        logged.setdefault(item["trainer/global_step"], {}).update(item)
    assert (directory / "wandb_id").read_text() in run.name
    assert len(history) == 2
    for row in history:
        for key in ("loss", "learning_rate", "val_loss", "val_wer", "val_cer", "health/blank_rate"):
            assert logged[row["step"]][key] == pytest.approx(row[key]), key


def test_without_wandb_the_csv_logger_holds_the_same_columns(tiny, tmp_path):
    (tmp_path / "data").symlink_to(tiny / "data")
    blocked = tmp_path / "site"
    (blocked / "wandb").mkdir(parents=True)
    (blocked / "wandb" / "__init__.py").write_text("raise ImportError('no wandb here')")
    settings = ("stage=5", "stop_stage=5", "arm=none", "seed=1")
    path = f"{blocked}:{REPOSITORY}"
    output = recipe(tmp_path, *settings, status=1, PYTHONPATH=path)
    assert "use logger=csv" in output and "Traceback" not in output
    recipe(tmp_path, *settings, "logger=csv", PYTHONPATH=path)
    (table,) = tmp_path.glob("exp/espeak/labels-*/none-*/csv/metrics.csv")
    assert {"loss", "val_wer", "learning_rate", "step"} <= set(table.read_text().splitlines()[0].split(","))
