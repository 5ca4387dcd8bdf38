"""The sweeps that draw a curve, from their cells to the pictures."""

import json
from collections import Counter

from hydra import compose, initialize_config_dir

from local.config import CONF
from tests.conftest import borrow, recipe, whole


def made(folder, stage: int, *settings: str) -> list[str]:
    """The directories that a stage of a sweep would make, below exp/, without their signatures."""
    lines = recipe(folder, f"stage={stage}", f"stop_stage={stage}", "dry_run=true", *settings, tiny=[]).splitlines()
    return [next(word for word in line.split() if word.startswith("exp/"))[4:].rpartition("-")[0] for line in lines]


def test_label_efficiency_has_three_arms_at_each_budget_and_every_control_at_one_hour(tmp_path):
    found = Counter(made(tmp_path, 5, "sweep=label_efficiency", "recipe=mini_librispeech"))
    arms = ("none", "random", "masked")
    controls = ("longer", "wide", "masked_frozen", "dense", "pca")
    assert found == (
        {f"mini_librispeech/labels-0.1667-{seed}/{arm}": 1 for seed in (1, 2, 3) for arm in arms}
        | {f"mini_librispeech/labels-1-0/{arm}": 3 for arm in arms + controls}
        | {f"mini_librispeech/labels-all-0/{arm}": 3 for arm in arms}
    )
    # of `masked`, trained and with random weights, one a seed for all budgets
    assert Counter(made(tmp_path, 3, "sweep=label_efficiency")) == {
        "pretrain/masked": 6, "pretrain/dense": 3, "pretrain/pca": 3
    }  # fmt: skip


def test_unlabeled_pretrains_on_four_amounts_and_has_its_baselines_once(tmp_path):
    found = Counter(made(tmp_path, 5, "sweep=unlabeled"))
    assert found == {f"espeak/labels-1-0/{arm}": n for arm, n in (("masked", 12), ("none", 3), ("random", 3))}
    assert Counter(made(tmp_path, 3, "sweep=unlabeled")) == {"pretrain/masked": 15}


def test_every_idea_is_tried_once_at_one_hour_of_labels_with_a_seed_of_its_own(tmp_path):
    found = Counter(made(tmp_path, 5, "sweep=ideas", "recipe=mini_librispeech"))
    rates, trials = 4, found["mini_librispeech/labels-1-0/masked"]
    assert found["mini_librispeech/labels-1-0/none"] == found["mini_librispeech/labels-1-0/random"] == rates
    assert trials - rates >= 10
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["recipe=mini_librispeech", "sweep=ideas", "arm=masked"])
    assert cfg.seed not in (1, 2, 3) and list(cfg.decoder.splits) == ["dev"]


def test_every_objective_is_tried_once_beside_the_baselines(tmp_path):
    found = Counter(made(tmp_path, 3, "sweep=objectives", "recipe=mini_librispeech"))
    assert found["pretrain/masked"] >= 15
    assert {found[f"pretrain/{name}"] for name in ("clustered", "quantized", "variational", "predictive")} == {1}
    found = Counter(made(tmp_path, 5, "sweep=objectives", "recipe=mini_librispeech"))
    assert found["mini_librispeech/labels-1-0/none"] == found["mini_librispeech/labels-1-0/random"] == 1


def test_arms_and_hours_on_the_command_line_choose_among_the_cells_of_a_sweep(tmp_path):
    settings = ("sweep=label_efficiency", "recipe=mini_librispeech")
    found = Counter(made(tmp_path, 5, *settings, "arm=none,masked", "labels.hours=1"))
    assert found == {f"mini_librispeech/labels-1-0/{arm}": 3 for arm in ("none", "masked")}
    assert Counter(made(tmp_path, 3, *settings, "arm=masked")) == {"pretrain/masked": 3}
    other = Counter(made(tmp_path, 5, *settings, "arm=masked", "labels.hours=2", "seed=4"))  # which no cell has
    assert other == {"mini_librispeech/labels-2-4/masked": 1, "mini_librispeech/labels-2-0/masked": 1}
    output = recipe(tmp_path, *settings, "arm=wide", "labels.hours=all", "dry_run=true", status=1, tiny=[])
    assert output.startswith(
        "error: arm=wide labels.hours=all: cells of the sweep have each of these, but none has them"
    )


def test_the_pretrained_arm_of_a_sweep_can_be_another_and_is_no_word_that_is_unknown(tmp_path):
    settings = ("stage=3", "stop_stage=3", "dry_run=true", "sweep=unlabeled")
    assert "pretrain/quantized" in made(tmp_path, 3, "sweep=unlabeled", "pretrained=quantized")
    output = recipe(tmp_path, *settings, "pretrained=quantised", status=1, tiny=[])
    assert output.startswith("error: ") and "quantised" in output and "Traceback" not in output
    output = recipe(tmp_path, "stage=5", "dry_run=true", "sweep=self_training", "rest=herd", status=1, tiny=[])
    assert output.startswith("error: Interpolation key 'rests.herd' not found")


def test_a_sweep_without_values_is_refused_in_one_line(tmp_path):
    output = recipe(tmp_path, "hydra.sweeper.params=null", "stage=5", status=1, tiny=[])
    assert output == (
        "error: conf/sweep/default.yaml sets no hydra.sweeper.params, which are the values to sweep; "
        "its first line is to be '# @package _global_'\n"
    )


def test_longer_has_more_updates_than_none_in_every_recipe_and_is_like_it_otherwise():
    for recipe_name in (path.stem for path in (CONF / "recipe").glob("*.yaml")):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            none, longer = (compose("config", [f"recipe={recipe_name}", f"arm={a}"]) for a in ("none", "longer"))
        assert longer.recognizer.updates > none.recognizer.updates
        assert {k for k in none.recognizer if none.recognizer[k] != longer.recognizer[k]} == {"updates"}
        assert longer.dirs.frontend == none.dirs.frontend


def test_a_list_of_products_ends_in_a_table_for_each_budget_and_a_picture(tiny, tmp_path):
    folder = borrow(tiny, tmp_path)
    first = 'arm:"none,masked",seed:"1,2",labels:drawn,labels.hours:0.004'
    second = 'arm:"none,longer,masked",seed:"1,2",labels.hours:all'
    settings = (f"hydra.sweeper.params=[{{{first}}},{{{second}}}]", "logger=csv")
    output = whole(folder, "sweep=label_efficiency", *settings)
    report = folder / "exp/espeak/report/label_efficiency"
    found = json.loads((report / "results.json").read_text())
    arms = [[(row["arm"], len(row["seeds"])) for row in entry["arms"]] for entry in found]
    assert arms == [[("none", 2), ("masked", 2)], [("none", 2), ("longer", 2), ("masked", 2)]]
    assert [(e["label_hours"], e["label_subset"]) for e in found] == [(0.004, None), (None, 0)]
    pairs = {(c["baseline"], c["arm"]) for c in found[1]["comparisons"]}
    assert pairs == {("none", "longer"), ("none", "masked"), ("longer", "masked")}
    assert "0.24 min of labels drawn anew for each seed" in output
    assert len(list(folder.glob("exp/espeak/labels-0.004-[12]/*"))) == 2 * 2 + 4  # with their locks
    assert len(list(folder.glob("exp/pretrain/masked-????????"))) == 2
    assert [path.name for path in report.glob("*_hours-*.png")] == ["labeled_hours-test-greedy.png"]
