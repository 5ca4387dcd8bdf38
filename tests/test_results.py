"""results.json and what is rendered from it, on corpora small enough to count by hand."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from local.errors import InputError
from local.matched_pairs import matched_pairs
from local.plots import lines, plot_curves, plot_hours
from local.results import Cell, entries
from local.scoring import read_counts, write_scores
from local.significance import bootstrap, compare, holm, resample
from local.tables import print_table, render_markdown

SPEAKERS = 8
LENGTH = 50  # words of each speaker's one utterance


def cell(root: Path, arm: str, seed: int, errors: list[int], **changes) -> Cell:
    """A cell whose speaker k has `errors[k]` words deleted from the end of 50."""
    out = root / f"{arm}-{changes.get('signature', 'sig')}-{seed}-{changes.get('label_hours', 1.0)}"
    words = [f"w{i}" for i in range(LENGTH)]
    references = {f"s{k}-1": " ".join(words) for k in range(len(errors))}
    hypotheses = {f"s{k}-1": " ".join(words[: LENGTH - n]) for k, n in enumerate(errors)}
    write_scores(out, references, hypotheses, {u: u.split("-")[0] for u in references})
    given = {"signature": "sig", "label_hours": 1.0, "frontend": "frozen", "parameters": 1234567} | changes
    return Cell(
        corpus="toy",
        split="test",
        decoder="greedy",
        arm=arm,
        seed=seed,
        score_dir=out,
        dev_score_dir=out,
        updates=2000,
        dropped=3,
        device_seconds=60.0 * seed,
        **given,
    )


def errors(base: int, seed: int) -> list[int]:
    """Errors by speaker: around `base`, a little off by seed and speaker."""
    return [base + (k * (seed + 1)) % 3 for k in range(SPEAKERS)]


def sweep(root: Path, seeds: int = 3, **levels: int) -> list[Cell]:
    return [cell(root, arm, seed, errors(base, seed)) for arm, base in levels.items() for seed in range(1, seeds + 1)]


def counts(base: int, seeds: int = 3) -> np.ndarray:
    return np.array([errors(base, seed) for seed in range(1, seeds + 1)])


def test_an_entry_holds_means_over_seeds_counted_by_hand(tmp_path):
    cells = sweep(tmp_path, masked=8, none=10)
    (entry,) = entries(cells[::-1])  # whatever the order
    assert entry == entries(cells)[0]
    assert [row["arm"] for row in entry["arms"]] == ["none", "masked"]
    assert {k: entry["reference"][k] for k in ("utterances", "words")} == {"utterances": 8, "words": 400}
    none = entry["arms"][0]
    # 80 deletions, and (2k) mod 3, 0 and k mod 3 on top for speakers k of 0 to 7: 8, 0 and 7, of 400 words
    assert [seed["errors"] for seed in none["seeds"]] == [{"sub": 0, "del": n, "ins": 0} for n in (88, 80, 87)]
    assert [seed["wer"] for seed in none["seeds"]] == [22.0, 20.0, 21.75]
    assert np.isclose(none["wer"], 21.25)
    assert none["ci"][0] < none["wer"] < none["ci"][1]
    assert none["device_seconds"] == 120.0 and none["parameters"] == 1234567 and none["dropped"] == 3
    json.dumps(entry, allow_nan=False)


def test_characters_are_compared_as_words_are_in_a_family_of_their_own(tmp_path):
    cells = sweep(tmp_path, none=10, random=10, masked=8)
    (entry,) = entries(cells)
    characters = {
        arm: np.stack([read_counts(c.score_dir).characters.errors for c in cells if c.arm == arm])
        for arm in ("none", "random", "masked")
    }
    length = read_counts(cells[0].score_dir).characters.length
    family = [(c["arm"], c["baseline"]) for c in entry["comparisons"]]
    expected = [compare(characters[baseline], characters[arm], length) for arm, baseline in family]
    for c, result in zip(entry["comparisons"], expected, strict=True):
        found = c["characters"]
        assert [found["delta"], *found["ci"], found["p"]] == [result.delta, result.low, result.high, result.p]
        assert (found["delta"] == c["delta"]) == (c["arm"] == "random")  # which here errs as `none` does
    adjusted = holm([None if arm == "random" else r.p for (arm, _), r in zip(family, expected, strict=True)])
    assert [c["characters"]["p_holm"] for c in entry["comparisons"]] == adjusted
    assert render_markdown([entry]).count("| masked | none |") == 3
    (phones,) = entries([replace(one, rate="PER") for one in cells])
    assert not any("characters" in c for c in phones["comparisons"])


def test_the_family_of_holm_is_that_of_the_pretrained_arms(tmp_path):
    (entry,) = entries(sweep(tmp_path, none=10, random=10, masked=8, pca=9))
    found = {(c["arm"], c["baseline"]): c for c in entry["comparisons"]}
    assert set(found) == {
        ("random", "none"), ("masked", "none"), ("pca", "none"), ("masked", "random"), ("pca", "random"),
    }  # fmt: skip
    words = np.full(SPEAKERS, LENGTH)
    expected = compare(counts(10), counts(8), words)
    assert found["masked", "none"]["p"] == expected.p and np.isclose(found["masked", "none"]["delta"], -4.0)
    assert found["random", "none"]["p_holm"] is None
    family = [key for key in found if key[0] != "random"]
    assert [found[key]["p_holm"] for key in family] == holm([found[key]["p"] for key in family])


def test_each_contrast_changes_one_thing(tmp_path):
    def row(arm: str, signature: str, **changes) -> Cell:
        same = {"shared": "recipe", "unsized": "recipe but size", "untimed": "recipe but updates"} | changes
        return cell(tmp_path, arm, 1, errors(10, 1), signature=signature, **same)

    (entry,) = entries([
        row("none", "n"), row("none", "other-recipe", shared="other", unsized="other", untimed="other"),
        row("longer", "long", shared="longer", unsized="longer"),
        row("wide", "as-large", shared="wide"), row("wide", "larger", shared="wide", parameters=2000000),
        row("random", "r-masked", front_end="masked"), row("random", "r-dense", front_end="dense"),
        row("masked", "m", front_end="masked", parameters=1200000, frontend="finetuned"),
        row("dense", "d", front_end="dense", parameters=10),
    ])  # fmt: skip
    assert {(c["signature"], c["baseline_signature"]) for c in entry["comparisons"]} == {
        ("m", "n"), ("m", "long"), ("m", "as-large"), ("m", "r-masked"), ("d", "n"), ("d", "r-dense"),
        ("long", "n"), ("as-large", "n"), ("larger", "n"), ("r-masked", "n"), ("r-dense", "n"),
    }  # fmt: skip


def test_a_comparison_carries_the_bootstrap_and_the_matched_pairs_of_the_seeds_of_median_dev_wer(tmp_path):
    dev = {"none": (30, 10, 20), "masked": (9, 11, 12, 10)}  # errors of every speaker, by seed
    cells = []
    for arm, base in (("none", 10), ("masked", 8)):
        for seed, level in enumerate(dev[arm], 1):
            scored = cell(tmp_path / "dev", arm, seed, [level] * SPEAKERS).score_dir
            cells.append(replace(cell(tmp_path, arm, seed, errors(base, seed)), dev_score_dir=scored))
    (entry,) = entries(cells)
    (found,) = entry["comparisons"]
    expected = matched_pairs(*(["C" * (LENGTH - n) + "D" * n for n in e] for e in (errors(10, 3), errors(8, 4))))
    # a segment an utterance; of four seeds, the better of the two in the middle
    assert found["matched_pairs"] == {"seeds": [4, 3], "segments": SPEAKERS, "z": expected.z, "p": expected.p}
    words = np.full(SPEAKERS, LENGTH)
    assert found["bootstrap"] == list(bootstrap(resample(counts(10), words), resample(counts(8, seeds=4), words)))
    assert np.isclose(found["detectable"], (found["ci"][1] - found["ci"][0]) / 2)
    low, high = found["bootstrap"]
    assert f"| masked | none | [{low:+.2f}, {high:+.2f}] | 4, 3 | 8 | {expected.z:+.2f} | " in render_markdown([entry])


def test_one_speaker_gives_no_spread_of_any_kind(tmp_path):
    (entry,) = entries([cell(tmp_path, arm, seed, [seed]) for arm in ("none", "masked") for seed in (1, 2, 3)])
    (found,) = entry["comparisons"]
    assert (found["ci"], found["bootstrap"], found["detectable"]) == ([None, None], [None, None], None)
    assert "cannot tell: +0.00 points, and no spread" in render_markdown([entry])


def test_every_row_of_a_sweep_meets_every_row_of_a_baseline(tmp_path):
    cells = sweep(tmp_path, none=10)
    for width, base in (("wide", 8), ("slim", 9)):
        cells += [
            cell(tmp_path, "masked", s, errors(base, s), signature=width, settings=f"encoder.width={base}")
            for s in (1, 2, 3)
        ]
    (entry,) = entries(cells)
    assert [(c["signature"], round(c["delta"], 6)) for c in entry["comparisons"]] == [("slim", -2.0), ("wide", -4.0)]
    assert "masked (encoder.width=9)" in render_markdown([entry])


def test_on_dev_rows_are_in_order_of_the_rate_that_chooses_the_checkpoints(tmp_path):
    cells = [replace(c, split="dev") for c in sweep(tmp_path, none=10, masked=12)]
    words = " ".join(f"w{i}" for i in range(LENGTH))
    misspelt = " ".join(f"w{i}" if i > 20 else f"v{i}" for i in range(LENGTH))  # more words wrong, fewer characters
    for one in cells:
        if one.arm == "masked":
            keys = {f"s{k}-1": f"s{k}" for k in range(SPEAKERS)}
            write_scores(one.score_dir, dict.fromkeys(keys, words), dict.fromkeys(keys, misspelt), keys)
    for best, order in {"wer": ["none", "masked"], "cer": ["masked", "none"]}.items():
        (entry,) = entries([replace(one, best=best) for one in cells])
        assert [row["arm"] for row in entry["arms"]] == order


def test_on_dev_rows_are_in_order_of_their_rates_and_nothing_is_compared(tmp_path):
    cells = [replace(c, split="dev") for c in sweep(tmp_path, none=10, masked=8, pca=9)]
    (entry,) = entries(cells)
    assert [row["arm"] for row in entry["arms"]] == ["masked", "pca", "none"]
    assert not entry["comparisons"]


def test_phones_are_called_by_their_name_and_have_no_characters(tmp_path):
    page = render_markdown(entries([replace(c, rate="PER") for c in sweep(tmp_path, none=10, masked=5)]))
    assert "400 phones" in page and "| PER %, 95 % interval | CER % | dev PER % |" in page
    assert "masked lowers the PER by 10.00 points" in page and " WER" not in page
    assert "] | - | " in next(line for line in page.splitlines() if line.startswith("| none"))


def test_label_hours_make_entries_in_order_and_none_is_all(tmp_path):
    cells = [cell(tmp_path, "none", 1, [5, 5], label_hours=hours) for hours in (None, 10.0, 0.5)]
    found = entries(cells)
    assert [entry["label_hours"] for entry in found] == [0.5, 10.0, None]
    page = render_markdown(found)
    assert page.index("0.5 h of labels") < page.index("10 h of labels") < page.index("all labels")


def test_a_label_subset_for_each_seed_is_said_and_fixed_ones_are_not_pooled(tmp_path):
    drawn = [replace(c, label_subset=None, label_hours=1 / 6) for c in sweep(tmp_path, none=10, masked=8)]
    fixed = [
        cell(tmp_path, "none", 1, [5, 5], signature=str(subset), label_subset=subset, label_hours=0.2)
        for subset in (0, 1)
    ]
    found = entries([*fixed, *drawn])
    assert [(e["label_subset"], len(e["arms"]), len(e["comparisons"])) for e in found] == [
        (None, 2, 1), (0, 1, 0), (1, 1, 0)
    ]  # fmt: skip
    page = render_markdown(found)
    assert "toy, 10 min of labels drawn anew for each seed, test" in page and "toy, 12 min of labels, test" in page


def rows_over_hours() -> list[dict]:
    """Entries at 0.5 h and at all labels, which are 5 h; `pca` is at one of them alone."""

    def row(arm: str, wer: float, hours: float, settings: str) -> dict:
        unlabeled = None if arm == "none" else 2.0
        named = {"arm": arm, "settings": settings, "wer": wer, "ci": [wer - 2, wer + 2]}
        return named | {"labeled_hours": hours, "unlabeled_hours": unlabeled}

    common = {"corpus": "toy", "split": "test", "decoder": "greedy", "rate": "WER"}
    half = [row("none", 60, 0.5, "labels=drawn labels.hours=0.5"), row("masked", 50, 0.5, "labels.hours=0.5")]
    full = [row("masked", 20, 5.0, ""), row("none", 30, 5.0, "labels.hours=all"), row("pca", 40, 5.0, "")]
    return [common | {"arms": full}, common | {"arms": half}]


def test_an_arm_is_one_line_over_labeled_hours_whatever_its_label_settings(tmp_path):
    ((key, found),) = lines(rows_over_hours(), "labeled_hours").items()
    assert key == ("toy", "test", "greedy", "WER")
    assert {name: [(row["labeled_hours"], row["wer"]) for row in rows] for name, rows in found.items()} == {
        "none": [(0.5, 60), (5.0, 30)], "masked": [(0.5, 50), (5.0, 20)], "pca": [(5.0, 40)],
    }  # fmt: skip
    plot_hours(rows_over_hours(), "labeled_hours", tmp_path)
    assert (tmp_path / "labeled_hours-test-greedy.png").read_bytes().startswith(b"\x89PNG")
    plot_hours([*rows_over_hours(), *(one | {"rate": "PER"} for one in rows_over_hours())], "labeled_hours", tmp_path)
    assert len([*tmp_path.glob("labeled_hours-*.png")]) == 2


def test_settings_that_change_with_the_hours_do_not_break_a_line_and_are_named():
    published = rows_over_hours()
    for entry, updates in zip(published, (10000, 4000), strict=True):
        for row in entry["arms"]:
            row["settings"] += f" recognizer.updates={updates} autoencoder=denoising decoder=greedy"
    ((_, found),) = lines(published, "labeled_hours").items()
    assert {name: len(rows) for name, rows in found.items()} == {
        "none autoencoder=denoising (recognizer.updates by hours)": 2,
        "masked autoencoder=denoising (recognizer.updates by hours)": 2,
        "pca recognizer.updates=10000 autoencoder=denoising": 1,
    }
    published[0]["arms"].append(published[0]["arms"][1] | {"settings": "recognizer.updates=4000 autoencoder=denoising"})
    ((_, found),) = lines(published, "labeled_hours").items()
    assert len(found["none recognizer.updates=4000 autoencoder=denoising"]) == 2
    assert len(found["none recognizer.updates=10000 autoencoder=denoising"]) == 1


def test_there_is_no_picture_of_one_amount_of_unlabeled_audio(tmp_path):
    plot_hours(rows_over_hours(), "unlabeled_hours", tmp_path)
    assert not list(tmp_path.iterdir())


def test_unlike_references_are_refused_and_both_directories_named(tmp_path):
    cells = [cell(tmp_path, "none", 1, [5, 5]), cell(tmp_path, "masked", 1, [5, 5, 5])]
    with pytest.raises(InputError, match="(?s)masked-sig-1.*none-sig-1"):
        entries(cells)


def test_the_same_seed_twice_is_refused(tmp_path):
    once = cell(tmp_path, "none", 1, [5, 6])
    with pytest.raises(InputError, match="same seed twice"):
        entries([once, once])


def test_the_verdict_says_what_the_numbers_allow(tmp_path):
    better = render_markdown(entries(sweep(tmp_path / "a", none=10, masked=5)))
    assert "- masked lowers the WER by 10.00 points" in better and "95 % interval [-1" in better
    same = render_markdown(entries(sweep(tmp_path / "b", none=10, masked=10)))
    assert "cannot tell: +0.00 points, smaller than the" in same and "this experiment could have shown" in same
    few = sweep(tmp_path / "c", seeds=2, none=10) + [cell(tmp_path / "c", "masked", 1, [5, 6, 5, 4, 5, 5, 7, 5])]
    short = render_markdown(entries(few))
    assert "this seed only: no p-value" in short and "p = " not in short


def test_the_same_scores_give_the_same_bytes(tmp_path):
    cells = sweep(tmp_path, none=10, random=10, masked=8)
    once, again = json.dumps(entries(cells)), json.dumps(entries(cells[::-1]))
    assert once == again


def test_the_page_is_the_same_twice_and_has_every_column(tmp_path):
    found = entries(sweep(tmp_path, none=10, masked=8))
    page = render_markdown(found)
    assert page == render_markdown(json.loads(json.dumps(found)))
    assert page.startswith("# Results\n\n## toy, 1 h of labels, test (8 utterances, 400 words), decoder greedy\n")
    assert "| 1,234,567 | 2,000 | 2.0 |" in page


def test_the_terminal_gets_at_most_100_columns_and_a_file_no_color(tmp_path):
    found = entries(sweep(tmp_path, none=10, masked=8))
    for terminal, colors in ((False, "auto"), (True, "standard")):
        out = io.StringIO()
        print_table(found, Console(file=out, width=300, force_terminal=terminal, color_system=colors))
        assert ("\x1b[" in out.getvalue()) == terminal
        if not terminal:
            assert max(map(len, out.getvalue().splitlines())) <= 100
            assert "masked lowers the WER by 4.00 points" in " ".join(out.getvalue().split())


def test_pictures_are_drawn_to_the_same_bytes(tmp_path):
    curves = {"none": [[(100, 80.0), (200, 60.0)]], "masked": [[(100, 70.0), (200, 50.0)], [(100, 71.0), (200, 52.0)]]}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plot_curves(curves, "WER", "all labels", tmp_path / name / "curves.png")
    for name, start in (("curves.png", b"\x89PNG"), ("curves.svg", b"<?xml")):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(start)
