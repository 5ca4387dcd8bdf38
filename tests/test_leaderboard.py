"""Trials that fail, and the leaderboard of all of them."""

import csv
import shutil
from pathlib import Path

import pytest

from local.config import plain
from local.errors import InputError
from local.lock import locked
from local.marker import read_json
from local.tree import Tree, words
from tests.conftest import borrow, here, printed, recipe
from tests.test_models import configuration


def board(folder: Path, *arguments: str) -> list[dict]:
    """The rows of `--csv`."""
    printed(folder, "local.leaderboard", "--csv", str(folder / "board.csv"), *arguments)
    with open(folder / "board.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_leaderboard_has_every_trial_with_its_dev_wer_and_cost_the_best_first(copy):
    rows = board(copy)
    assert sorted((row["arm"], row["seed"]) for row in rows) == [
        (a, s) for a in ("dense", "masked", "none") for s in "12"
    ]
    assert {row["state"] for row in rows} == {"done"}
    rates = [float(row["wer"]) for row in rows]
    assert rates == sorted(rates)
    for row in rows:
        (wer,) = (copy / row["directory"]).glob("greedy-*/score/dev/wer")
        assert float(row["wer"]) == float(wer.read_text().split()[1])
        seconds = read_json(copy / row["directory"] / "summary.json")["device_seconds"]
        if row["arm"] != "none":
            frontend = read_json(copy / row["directory"] / "done.json")["config"]["dirs.frontend"]
            seconds += read_json(copy / frontend / "../../summary.json")["device_seconds"]
        assert float(row["cost"]) == pytest.approx(seconds / 60)
    costs = [float(row["cost"]) for row in board(copy, "--sort", "cost")]
    assert costs == sorted(costs)
    assert {row["recognizer.frontend"] for row in rows if row["arm"] == "masked"} == {"finetuned"}
    assert "autoencoder.updates" not in rows[0]  # alike in all that have it
    shown = printed(copy, "local.leaderboard")
    assert "6 trials: 6 done" in shown and all(Path(row["directory"]).name in shown for row in rows)


def test_of_an_inventory_of_word_pieces_only_its_ends_are_shown():
    settings = {"units.inventory": plain(configuration("units=bpe"), "units")["inventory"], "speeds": [0.9, 1.0, 1.1]}
    first, last = (settings["units.inventory"][place] for place in (0, -1))
    assert words(settings, settings) == f"units.inventory=[{first}, ... {last}] speeds=[0.9, 1.0, 1.1]"


def test_without_its_lists_of_cells_the_leaderboard_is_the_same(copy):
    before = board(copy)
    shutil.rmtree(copy / "exp/cells")
    assert board(copy) == before


def test_a_lock_tells_a_running_trial_from_a_killed_one(copy):
    killed, running, *_ = sorted(copy.glob("exp/espeak/*/masked-????????"))
    for path in (killed, running):
        path.rename(f"{path}.partial")
    (scored,) = next(copy.glob("exp/espeak/*/none-????????")).glob("greedy-*/score")
    shutil.rmtree(scored)
    with locked(running, "a test"):
        rows = {copy / row["directory"]: row for row in board(copy)}
    assert (rows[killed]["state"], rows[killed]["stage"]) == ("killed", "finetune")
    assert (rows[running]["state"], rows[running]["stage"]) == ("running", "finetune")
    assert (rows[scored.parent.parent]["state"], rows[scored.parent.parent]["stage"]) == ("to run", "score")
    assert [row["wer"] for row in rows.values()].count("") == 3 and list(rows.values())[-1]["wer"] == ""


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    settings = ("stage=5", "stop_stage=7", "arm=none", "seed=1", "recognizer.stride=512,4", "logger=csv")
    reason = "recognizer.stride=512: CTC can align none of"
    first = recipe(folder, *settings, status=3)
    assert f"\nerror: {reason}" in first and "1 of 2 jobs failed" in first.splitlines()[-1] and "Traceback" not in first
    rows = {row["recognizer.stride"]: row for row in board(folder)}
    assert rows["4"]["state"] == "done" and rows["512"]["state"] == "failed"
    assert rows["512"]["stage"] == "finetune" and rows["512"]["reason"].startswith(reason)
    assert "1 done, 1 failed" in (shown := printed(folder, "local.leaderboard")) and reason in shown
    again = recipe(folder, *settings, status=3)
    assert again.count("done already") == 3 and "done in" not in again and reason in again


def test_a_record_of_failure_names_the_reason_downstream_and_goes_once_it_succeeds(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    noises = tmp_path / "noises"
    noisy = f"autoencoder.augmentation.noises={noises}"
    with pytest.raises(InputError):
        here(folder, 3, 3, "arm=masked", noisy)
    with pytest.raises(InputError, match="needed, but exp/pretrain/masked-.* failed: .*"):
        here(folder, 5, 5, "arm=masked", noisy)
    with pytest.raises(InputError, match="needed, but exp/.*masked-.* failed: exp/pretrain/.*store=audio"):
        here(folder, 6, 6, "arm=masked", noisy)
    assert len(list(folder.glob("exp/**/*.failed"))) == 3
    (folder / "data").unlink()
    shutil.copytree(tiny / "data", folder / "data")
    (marker,) = folder.glob("data/espeak-*/fbank-*/done.json")
    marker.rename(tmp_path / "away")
    with pytest.raises(InputError, match="run stage 2"):
        here(folder, 5, 5, "arm=none")
    (record,) = folder.glob("exp/espeak/*/none-*.failed")
    assert "run stage 2" in record.read_text()
    (tmp_path / "away").rename(marker)
    here(folder, 5, 5, "arm=none")
    assert not record.exists()


def test_a_sweep_goes_on_with_other_cells_after_some_failed_but_reports_on_none(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    noisy = f"autoencoder.augmentation.noises={tmp_path / 'noises'}"
    output = recipe(folder, "arm=none,masked", "seed=1", "logger=csv", noisy, status=3)
    assert "1 of 1 jobs failed" in output and "1 of 2 jobs failed" in output and "noises" in output
    assert "[none seed=1] score: done in" in output and "Traceback" not in output
    assert not list(folder.glob("exp/espeak/report*"))


def test_the_parallel_coordinates_are_a_picture_of_the_trials_that_are_done(copy):
    printed(copy, "local.leaderboard", "--plot", "first.png")
    assert (copy / "first.png").read_bytes().startswith(b"\x89PNG")
    (wer,) = next(copy.glob("exp/espeak/*/dense-????????")).glob("greedy-*/score/dev/wer")
    wer.write_text("%WER 12.50 [ 1 / 8, 0 ins, 1 del, 0 sub ]\n")
    printed(copy, "local.leaderboard", "--plot", "second.png")
    assert (copy / "first.png").read_bytes() != (copy / "second.png").read_bytes()
    shutil.rmtree(copy / "exp/espeak")
    assert "nothing to draw" in printed(copy, "local.leaderboard", "--plot", "third.png", status=1)
    assert not (copy / "third.png").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "error: nowhere: no such folder"),
        (["--sort", "speed"], "error: --sort speed: no such column; there are: wer, state, arm, seed"),
        (["--csv", "nowhere/file.csv"], "error: nowhere/file.csv: No such file or directory"),
    ],
)
def test_what_the_leaderboard_cannot_do_is_one_line(tiny, tmp_path, arguments, message):
    (tmp_path / "exp").symlink_to(tiny / "exp")
    output = printed(tmp_path, "local.leaderboard", *arguments, status=1)
    assert output.startswith(message) and len(output.splitlines()) == 1


def test_trials_of_a_folder_elsewhere_are_those_it_holds(tiny, tmp_path):
    (tmp_path / "other").symlink_to(tiny / "exp")
    here_and_there = [Tree(path).trials() for path in (tiny / "exp", tmp_path / "other")]
    assert here_and_there[0] == here_and_there[1] and len(here_and_there[0]) == 6
