"""What a training leaves for Weights & Biases."""

import json
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from local import logger
from local.config import CONF
from local.errors import InputError


def settings(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["labels.hours=0.5", "arm=none", "seed=3", *overrides])


def records(folder) -> list[dict]:
    """All that stands in the offline runs of a folder, in order of time."""
    found = []
    for run in sorted(folder.glob("wandb/offline-run-*")):
        command = ["wandb", "leet", "inspect", "--json", str(run)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found += map(json.loads, lines)
    return found


def of_kind(folder, kind: str) -> list[dict]:
    return [record[kind] for record in records(folder) if record["type"] == kind]


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Without a key or a server."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def test_a_training_that_goes_on_continues_its_run_and_runs_are_filtered_by_what_they_are(tmp_path):
    for _ in range(2):
        with logger.opened(settings(), tmp_path, "finetune") as run:
            run.log_metrics({"val_wer": 50.0}, step=1)
    first, second = of_kind(tmp_path, "run")
    assert first["run_id"] == second["run_id"] and first["resume"]
    assert (first["run_group"], first["job_type"]) == ("none", "finetune")
    assert first["tags"] == ["espeak", "seed-3", "labels-0.5-0", "hours-0.5"]


def test_metrics_are_defined_once_with_their_units(tiny):
    for kind in ("labels-*/masked-*", "labels-*/none-*"):
        (directory, *_) = sorted((tiny / "exp/espeak").glob(kind))
        logged = {key for item in of_kind(directory, "history") for key in item["item"] if not key.startswith("_")}
        defined = [metric["name"] for metric in of_kind(directory, "metric") if "name" in metric]
        assert logged <= set(defined)
        assert sorted(defined) == sorted([*logger.METRICS, "trainer/global_step"])
        (run,) = of_kind(directory, "run")
        assert run["config"]["update"]["metric_units"]["val_wer"] == "% of the words of dev"


def test_no_password_of_a_url_or_a_command_line_reaches_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["local.run", "corpus.mirror=https://me:sekret@example.org"])
    cfg = settings("corpus=librispeech", "corpus.mirror=https://me:sekret@example.org/resources")
    with logger.opened(cfg, tmp_path, "finetune"):
        pass
    assert "https://example.org/resources" in str(records(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sekret" in path.read_bytes()]


def test_a_server_that_does_not_answer_costs_no_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with logger.opened(settings("logger.mode=online"), tmp_path, "finetune") as run:
        run.log_metrics({"val_wer": 50.0}, step=1)
    assert "kept offline, local/sync_wandb.sh uploads it" in caplog.text
    assert [item["item"]["val_wer"] for item in of_kind(tmp_path, "history")] == [50.0]


def test_online_without_a_key_is_refused_and_asks_for_nothing():
    with pytest.raises(InputError, match="there is no key; set WANDB_API_KEY"):
        logger.check(settings("logger.mode=online"))


def test_a_mode_that_there_is_not_is_refused_before_the_training(monkeypatch):
    with pytest.raises(InputError, match="logger.mode=onlin: expected one of offline, online, disabled"):
        logger.check(settings("logger.mode=onlin"))
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(InputError, match="logger.mode=of: .*WANDB_MODE overrides it"):
        logger.check(settings())


@pytest.mark.parametrize("asked", [False, True])
def test_checkpoints_and_archives_are_referred_to_if_that_is_asked_for(tmp_path, asked):
    (features := tmp_path / "data/fbank-1").mkdir(parents=True)
    (features / "feats.ark").write_bytes(b"frames")
    (trained := tmp_path / "exp/none-2").mkdir(parents=True)
    (trained / "recognizer.pt").write_bytes(b"weights")
    dirs = {"pretrain": None, "bottleneck": None, "features": str(features), "finetune": str(trained)}
    cfg = settings(f"logger.artifacts={asked}")
    logger.log_report(cfg, tmp_path, [], [{"dirs": dirs}, {"dirs": dirs}])
    found = {a["type"]: a["manifest"]["contents"] for a in of_kind(tmp_path, "artifact") if a["type"] != "run_table"}
    if not asked:
        assert not found
        return
    assert found.keys() == {"archive", "checkpoint"}
    assert [entry["ref"] for entry in found["checkpoint"]] == [f"file://{trained}/recognizer.pt"]
    assert [entry["ref"] for entry in found["archive"]] == [f"file://{features}/feats.ark"]
