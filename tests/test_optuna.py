"""A search by Optuna: trials of both trainings, how they end, and a study that goes on."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from local.failure import Stopped
from local.marker import read_json
from tests.conftest import borrow, here, printed, recipe
from tests.test_leaderboard import board
from tests.test_survival import start

SEARCH = ("stage=3", "stop_stage=7", "sweep=optuna", "logger=csv", "hydra/launcher=basic")
STUDY = "exp/espeak/labels-all-0/optuna.db"


def trials(folder: Path, arm: str, study: str = STUDY) -> list:
    return optuna.load_study(study_name=arm, storage=f"sqlite:///{folder / study}").trials


@pytest.fixture(scope="module")
def searched(tiny, tmp_path_factory) -> Path:
    """A folder in which `none` and `masked` had two trials each, which the report tells of."""
    folder = borrow(tiny, tmp_path_factory.mktemp("searched"))
    settings = ("arm=none,masked", "sweep.trials=2", "autoencoder.masked=0.5")
    (folder / "output.txt").write_text(recipe(folder, *SEARCH, *settings))
    recipe(folder, "stage=8", "stop_stage=8", *SEARCH[2:], *settings)
    return folder


def test_each_arm_has_its_trials_one_cell_each_from_one_space_on_dev_alone(searched):
    for arm, more in (("none", set()), ("masked", {"autoencoder.learning_rate"})):
        found = trials(searched, arm)
        assert [trial.state for trial in found] == [TrialState.COMPLETE] * 2
        keys = {"recognizer.learning_rate", "recognizer.frontend_rate", "recognizer.encoder.dropout"} | more
        assert all(trial.params.keys() == keys for trial in found)
        scores = searched.glob(f"exp/espeak/labels-all-0/{arm}-*/greedy-*/score/dev/wer")
        assert sorted(float(path.read_text().split()[1]) for path in scores) == sorted(t.value for t in found)
    assert not list(searched.glob("exp/**/score/test"))
    rates = {trial.params["autoencoder.learning_rate"] for trial in trials(searched, "masked")}
    assert len(list(searched.glob("exp/pretrain/masked-????????"))) == len(rates)
    assert {row["seed"] for row in board(searched)} == {"101"}


def test_the_report_says_how_many_trials_each_arm_had_and_with_which_settings(searched):
    written = (searched / "exp/espeak/report/optuna/RESULTS.md").read_text()
    assert "| none | 2 | 2 | 0 | 0 |" in written and "| masked | 2 | 2 | 0 | 0 |" in written
    for trial in trials(searched, "none"):
        rate = f"recognizer.learning_rate={trial.params['recognizer.learning_rate']:.4g}"
        assert f"| none (trial {trial.number}) | {rate} " in written


def test_the_same_command_runs_nothing_again_and_more_trials_are_added_to_what_there_is(searched, tmp_path):
    folder = borrow(searched, tmp_path)
    shutil.copytree(searched / "exp", folder / "exp", symlinks=True)
    settings = (*SEARCH, "arm=none,masked", "autoencoder.masked=0.5")
    again = recipe(folder, *settings, "sweep.trials=2")
    assert "finetune" not in again and again.count("2 finished") == 2
    before = trials(folder, "none")
    more = recipe(folder, *settings[:5], "arm=none", "autoencoder.masked=0.5", "sweep.trials=3")
    assert more.count("finetune: done in") == 1
    after = trials(folder, "none")
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before] and len(after) == 3


@pytest.mark.parametrize(
    "settings, message",
    [
        (["recognizer.learning_rate=interval(0.001,0.01)"], "a study of none in another search space: recognizer."),
        (["recognizer.frontend_rate=0.1"], "frontend_rate was tag(log,interval(0.05,1.0)), and is one value; give it"),
        (["labels.seed=3", f"sweep.study={STUDY}"], "in trials with other settings: labels.seed was 0, and is 3"),
        (
            ["sweep.study=output.txt"],
            "output.txt: no study can be kept there (file is not a database); mend that",
        ),
        (["sweep.study=new.db", "halving.keep=2"], "halving.keep=2 halving.at=[0.25, 0.5]: expected a share"),
        (["sweep.study=new.db", "recognizer.learning_rate=interval(2,1)"], "recognizer.learning_rate=interval(2,1): "),
        (["seed=1,2"], "seed=1,2: a search is over settings of autoencoder, unlabeled, recognizer; give one value"),
        (["stop_stage=5"], "--stop-stage finetune: a trial ends in its WER on dev; stop at score, or later"),
    ],
)
def test_what_a_search_cannot_do_is_one_line(searched, tmp_path, settings, message):
    (tmp_path / STUDY).parent.mkdir(parents=True)
    for name in (STUDY, "output.txt"):
        shutil.copy(searched / name, tmp_path / name)
    output = recipe(tmp_path, *SEARCH, "arm=none", *settings, status=1)
    assert output.startswith("error: ") and message in output and len(output.splitlines()) == 1


def test_a_trial_that_fails_is_recorded_with_its_reason_and_the_others_go_on(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    single = ("recognizer.learning_rate=0.01", "recognizer.frontend_rate=0.1", "recognizer.encoder.dropout=0.1")
    settings = (*SEARCH, "arm=none", *single, "recognizer.stride=4,512", "sweep.trials=4", "sweep.draw=4")
    output = recipe(folder, *settings, status=3)
    good, bad = ([t for t in trials(folder, "none") if t.params["recognizer.stride"] == s] for s in ("4", "512"))
    assert good and bad and len(good) + len(bad) == 4
    assert {trial.state for trial in good} == {TrialState.COMPLETE}
    assert {trial.state for trial in bad} == {TrialState.FAIL}
    reason = "recognizer.stride=512: CTC can align none of"
    assert all(trial.user_attrs["reason"].startswith(reason) for trial in bad)
    assert f"{len(good)} finished, 0 stopped, {len(bad)} failed, and {len(bad)} of 4 missing" in output
    assert output.count("finetune: done in") == 1 and "Traceback" not in output  # equal trials are one cell
    assert {row["state"]: row["reason"][: len(reason)] for row in board(folder)} == {"done": "", "failed": reason}


def test_the_worse_half_is_stopped_at_a_rung_and_a_plain_cell_goes_on_from_there(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    cell = ("arm=none", "decoder.splits=[dev]", "recognizer.updates=12", "recognizer.best=cer")
    rung = folder / f"{STUDY}.rungs/none/0.5"
    rung.mkdir(parents=True)
    (rung / "none-00000000").write_text('{"step": 6, "best": 1.0}\n')
    with pytest.raises(Stopped, match="stopped at update 6 of 12: .* of 2 trials so far 50% have at most 1.00 %"):
        here(folder, 5, 5, *cell, "sweep=optuna")
    assert len(list(rung.iterdir())) == 2
    (last,) = folder.glob("exp/**/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 4  # though the best was that of step 2
    (row,) = board(folder)
    assert row["state"] == "stopped" and row["stage"] == "finetune" and row["reason"].startswith("stopped at update 6")
    assert "stopped at update 6 of 12" in printed(folder, "local.ls", "--clean")
    here(folder, 5, 7, *cell)
    (row,) = board(folder)
    assert row["state"] == "done" and not list(folder.glob("exp/**/*.stopped"))
    history = read_json(folder / row["directory"] / "history.json")
    assert [point["step"] for point in history] == [2, 4, 6, 8, 10, 12]


def test_a_search_stops_what_lags_behind_and_counts_it(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    settings = (*SEARCH, "arm=none", "recognizer.updates=8", "recognizer.best=cer", "sweep.trials=4")
    output = recipe(folder, *settings, "recognizer.learning_rate=tag(log,interval(1e-6,0.03))")
    found = trials(folder, "none")
    stopped = [trial for trial in found if trial.state == TrialState.PRUNED]
    assert stopped and len(found) == 4 and f"{4 - len(stopped)} finished, {len(stopped)} stopped, 0 failed" in output
    for trial in stopped:
        last = max(trial.intermediate_values)
        rivals = sorted(t.intermediate_values[last] for t in found if last in t.intermediate_values)
        assert last in (2, 4) and trial.value == trial.intermediate_values[last] > rivals[0]


def test_a_killed_search_goes_on_with_the_trials_that_ran_and_two_at_once_are_refused(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    longer = ("recognizer.updates=60", "recognizer.check_every=5", "arm=none", "sweep.trials=2", "halving.at=[]")
    process = start(folder, *SEARCH, *longer)
    while not list(folder.glob("exp/**/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGSTOP)  # or, on a busy machine, it is done before the second one asks
    second = recipe(folder, *SEARCH, *longer, status=1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.startswith(f"error: {STUDY}: another sweep is at this study") and len(second.splitlines()) == 1
    before = trials(folder, "none")
    assert [trial.state for trial in before] == [TrialState.RUNNING] * 2
    output = recipe(folder, *SEARCH, *longer)
    after = trials(folder, "none")
    assert [(t.params, t.state) for t in after] == [(t.params, TrialState.COMPLETE) for t in before]
    assert "2 finished, 0 stopped, 0 failed; the best" in output
    (name,) = {path.name for path in folder.glob("exp/cells/search-*.json")}
    assert len(json.loads((folder / "exp/cells" / name).read_text())) == 2
