"""index.html: the report as one page, and its numbers counted again by hand."""

import base64
import io
import json
from contextlib import chdir
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from local.differences import Change, changes, confusions, rows
from local.page import render
from local.plots import plot_differences
from local.results import Cell, entries
from local.scoring import Alignment, write_scores
from local.tables import sections
from tests.test_recipe import results


class Page(HTMLParser):
    """Cells of tables, all text, the names of all elements and what they link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells, self.text, self.tags, self.links, self.within = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset", "data")]
        if tag in ("td", "th"):
            self.within = tag
            self.cells.append("")

    def handle_endtag(self, tag):
        self.within = None if tag in ("td", "th") else self.within

    def handle_data(self, data):
        self.text.append(data)
        if self.within:
            self.cells[-1] += data


def by_hand(folder: Path, arm: str) -> list[list[tuple[str, int, int]]]:
    """Of each seed of the tiny run, each utterance's id, errors and words, from the counts in per_utt."""
    seeds = []
    for path in folder.glob(f"exp/espeak/labels-*/{arm}-*/greedy-*/score/test/per_utt"):
        lines = [line.split() for line in path.read_text().splitlines() if "#csid" in line]
        seeds.append([(key, int(s) + int(i) + int(d), int(c) + int(s) + int(d)) for key, _, c, s, i, d in lines])
    return seeds


def test_a_rate_and_a_difference_are_what_the_scores_beside_them_give_by_hand(tiny):
    (entry,) = results(tiny)
    rates = {}
    for arm in ("none", "dense"):
        seeds = by_hand(tiny, arm)
        assert len(seeds) == 2
        rates[arm] = sum(100 * sum(e for _, e, _ in one) / sum(n for _, _, n in one) for one in seeds) / 2
    found = {row["arm"]: row["wer"] for row in entry["arms"]}
    assert {arm: found[arm] for arm in rates} == pytest.approx(rates)
    (c,) = (c for c in entry["comparisons"] if (c["arm"], c["baseline"]) == ("dense", "none"))
    assert c["delta"] == pytest.approx(rates["dense"] - rates["none"]) != 0


def test_the_page_has_every_number_of_the_tables_and_needs_no_network(tiny):
    text = (tiny / "exp/espeak/report/index.html").read_text()
    page = Page(text)
    (entry,) = results(tiny)
    for section in sections(entry):
        assert len(section.rows) > 1
        for row in section.rows:
            assert any(page.cells[i : i + len(row)] == row for i in range(len(page.cells))), row
    assert entry["reference"]["sha256"] in page.cells
    assert "://" not in text and "<script" not in text and "@import" not in text
    assert {"svg", "img", "audio"} <= set(page.tags) and not {"link", "script", "iframe", "object"} & set(page.tags)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert len(text) < 3e6


def test_the_report_is_the_same_bytes_when_it_is_made_again(tiny, tmp_path):
    (cells,) = (tiny / "exp/cells").glob("*.json")
    from local.stages.report import _draw, scored

    listed = json.loads(cells.read_text())
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with chdir(tiny):
            scores = scored(listed)
            _draw(listed, entries(scores), scores, tmp_path / name)
            pages.append(render(entries(scores), scores, listed, tmp_path / name, "commit"))
    assert pages[0] == pages[1]


def test_a_report_in_wandb_has_the_tables_and_the_pictures(tiny):
    report = tiny / "exp/espeak/report"
    (media,) = report.glob("wandb/offline-run-*/files/media")
    (entry,) = results(tiny)
    (table,) = media.glob("table/differences_*.json")
    found = json.loads(table.read_text())
    delta = found["columns"].index("delta")
    assert [row[delta] for row in found["data"]] == [c["delta"] for c in entry["comparisons"]]
    (table,) = media.glob("table/comparison_*.json")
    found = json.loads(table.read_text())
    assert [row[found["columns"].index("wer")] for row in found["data"]] == [row["wer"] for row in entry["arms"]]
    shown = {path.name.rpartition("_")[0].rpartition("_")[0] for path in media.glob("images/*.png")}
    assert (
        shown == {path.stem for path in report.glob("*.png")} >= {"curves-1", "errors-1", "speakers-1-1", "groups-1-1"}
    )


HOSTILE = "<script>alert(1)</script>"
SAID = "hello there test"


@pytest.fixture
def scored(corpus) -> tuple[list[Cell], list[dict]]:
    """Cells of `none` and `masked` on three utterances, of which the second becomes worse and the third better."""
    heard = {"none": (SAID, SAID, "hello"), "masked": (SAID, f"hello {HOSTILE} there", "hello there best")}
    keys, data = [f"s3-{i}" for i in range(3)], corpus / "mine"
    (data / "test/utt2dur").write_text("".join(f"{key} 1.0\n" for key in keys))
    cells, listed = [], []
    for arm, texts in heard.items():
        for seed in (1, 2):
            out = corpus / f"{arm}-{seed}" / "test"
            write_scores(
                out, dict.fromkeys(keys, SAID), dict(zip(keys, texts, strict=True)), {key: key for key in keys}
            )
            cells.append(
                Cell(
                    corpus="mine", label_hours=None, split="test", decoder="greedy", arm=arm, frontend="frozen",
                    signature="sig", seed=seed, score_dir=out, dev_score_dir=out, parameters=1, updates=1, dropped=0,
                    device_seconds=1.0,
                )
            )  # fmt: skip
            dirs = {"data": str(data), "score": str(out.parent)}
            listed.append({"arm": arm, "seed": seed, "signature": "sig", "settings": HOSTILE, "dirs": dirs})
    return cells, listed


def test_what_was_heard_and_set_cannot_become_a_part_of_the_page(scored, tmp_path):
    cells, listed = scored
    for signature in "ab":  # two rows of an arm are told apart by their settings
        cells += [
            replace(cell, arm="pca", settings=f"{HOSTILE} {signature}", signature=signature)
            for cell in cells
            if cell.arm == "masked"
        ]
    plot_differences([(HOSTILE, 1.0), ("$x^", -1.0)], tmp_path / "speakers-1-1.png", title=HOSTILE, ylabel="points")
    page = Page(render(entries(cells), cells, listed, tmp_path, None))
    assert "script" not in page.tags
    assert f"pca ({HOSTILE} a)" in page.cells and f"1.0 *** → {HOSTILE}" in page.cells
    drawn = [text for text in page.text if text == HOSTILE]
    assert len(drawn) == len(listed) + 1 + 3  # settings; the word; title and name of the bar in the picture
    assert "$x^" in page.text


def test_the_utterances_that_changed_most_are_shown_and_heard(scored, tmp_path):
    cells, listed = scored
    (entry,) = entries(cells)
    (c,) = entry["comparisons"]
    rose, fell = changes(c, rows(entry, cells))
    assert [(one.arm.id, one.before, one.after) for one in rose] == [("s3-1", 0, 2)]
    assert [(one.arm.id, one.before, one.after) for one in fell] == [("s3-2", 2, 1)]
    page = Page(render([entry], cells, listed, tmp_path, None))
    sounds = [link for link in page.links if link.startswith("data:audio")]
    assert len(sounds) == 2 == page.tags.count("audio")
    for sound in sounds:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))
        assert rate == 16000 and len(samples) / rate == pytest.approx(1, abs=0.1)


def test_a_page_is_made_where_the_audio_is_gone(scored, tmp_path):
    cells, listed = scored
    for path in Path(listed[0]["dirs"]["data"]).glob("test/*.wav"):
        path.unlink()
    page = Page(render(entries(cells), cells, listed, tmp_path, None))
    assert "audio" not in page.tags and "its audio is not at hand any more" in page.text


def test_two_hypotheses_stand_below_the_words_they_are_aligned_with():
    none = Alignment("u", ["a", "b", "c"], ["x", "a", "c"], "ICDC")
    masked = Alignment("u", ["a", "b", "c"], ["a", "d", "c", "y", "z"], "CSCII")
    assert Change(2, 3, none, masked).columns == [
        ("***", ("x", "I"), ("", "")), ("a", ("a", "C"), ("a", "C")), ("b", ("***", "D"), ("d", "S")),
        ("c", ("c", "C"), ("c", "C")), ("***", ("", ""), ("y", "I")), ("***", ("", ""), ("z", "I")),
    ]  # fmt: skip


def test_confusions_are_counted_a_seed(scored):
    cells, _ = scored
    found = confusions([cell for cell in cells if cell.arm == "masked"])
    assert found == [("***", HOSTILE, 1.0), ("test", "***", 1.0), ("test", "best", 1.0)]
