"""The verdict on anybody's hypotheses, against the report's on the same ones, and what it refuses."""

import json

import pytest

from local import hypotheses
from local.scoring import read_counts, write_scores
from tests.conftest import printed

REF = {"ann-1": "the cat sat", "ann-2": "on the mat", "bob-1": "one two three four"}
GOOD = {"ann-1": "the cat sat", "ann-2": "on a mat", "bob-1": "one two three four"}
POOR = {"ann-1": "the cap sat", "ann-2": "the mat now", "bob-1": "one two three"}


def compared(folder, *arguments, status=0):
    """What is printed, stderr last."""
    return printed(folder, "local.compare", *map(str, arguments), status=status)


def trn(path, texts):
    path.write_text("".join(f"{text} ({key})\n" for key, text in texts.items()))


@pytest.fixture
def files(tmp_path):
    trn(tmp_path / "ref.trn", REF)
    trn(tmp_path / "good.trn", GOOD)
    trn(tmp_path / "poor.trn", POOR)
    return tmp_path


def test_it_says_of_a_sweeps_decodings_what_the_report_says(tiny, tmp_path):
    (entry,) = json.loads((tiny / "exp/espeak/report/results.json").read_text())
    (cells,) = (json.loads(path.read_text()) for path in tiny.glob("exp/cells/*.json"))
    arms = ["none", "masked", "dense"]
    scores = [
        ",".join(str(tiny / cell["dirs"]["score"] / "test") for cell in cells if cell["arm"] == arm) for arm in arms
    ]
    compared(tmp_path, scores[0].split(",")[0], *map("=".join, zip(arms, scores, strict=True)), "--json", "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["reference"]["sha256"] == entry["reference"]["sha256"]
    for mine in found["arms"]:
        (row,) = (row for row in entry["arms"] if row["arm"] == mine["arm"])
        assert (mine["wer"], mine["ci"]) == (row["wer"], row["ci"])
    for mine in found["comparisons"]:
        (its,) = (c for c in entry["comparisons"] if (c["arm"], c["baseline"]) == (mine["arm"], "none"))
        assert [mine[key] for key in ("delta", "relative", "ci", "p")] == [
            its[k] for k in ("delta", "relative", "ci", "p")
        ]


def test_three_formats_are_one_verdict(files):
    (files / "kaldi").write_text("".join(f"{key} {text}\n" for key, text in POOR.items()))
    ctm = [f"{key} 1 {i}.5 0.1 {word} 0.9\n" for key, text in POOR.items() for i, word in enumerate(text.split())]
    (files / "poor.ctm").write_text("".join(reversed(ctm)))  # times give the order
    output = compared(
        files, "ref.trn", "good=good.trn", "trn=poor.trn", "kaldi=kaldi", "ctm=poor.ctm", "--json", "json"
    )
    found = json.loads((files / "json").read_text())
    assert [one["wer"] for one in found["arms"]] == [10.0, 40.0, 40.0, 40.0]
    assert found["arms"][1]["errors"] == {"sub": 1, "del": 2, "ins": 1}
    for comparison in found["comparisons"]:
        assert comparison["utterances"]["better"] == comparison["speakers"]["better"] == []
        assert [name for name, *_ in comparison["utterances"]["worse"]] == ["ann-1", "ann-2", "bob-1"]
        assert comparison["utterances"]["worse"][0] == ["ann-1", 1.0, 0.0, 3]
        assert comparison["speakers"]["worse"] == [["ann", 3.0, 1.0, 6], ["bob", 1.0, 0.0, 4]]
    # Of two speakers, whose influences are +2 and -2 points: 30 +- t(0.975, df=1) * 4
    verdict = (
        "trn against good: cannot tell: +30.00 points, 95 % interval [-20.82, +80.82]; this seed only: no p-value."
    )
    assert verdict in " ".join(output.split())
    assert [c["relative"] for c in found["comparisons"]] == pytest.approx([300] * 3)


def test_who_became_better_is_named_first_who_did_so_by_most(files):
    output = compared(files, "ref.trn", "poor.trn", "good.trn", "--json", "json")
    (found,) = json.loads((files / "json").read_text())["comparisons"]
    assert {name for name, *_ in found["utterances"]["better"]} == {*REF} and not found["utterances"]["worse"]
    assert [name for name, *_ in found["speakers"]["better"]] == ["ann", "bob"]
    _, _, table = output.partition("Speakers that became better, the most first:\n")
    assert [line.split()[:3] for line in table.splitlines() if "good.trn" in line][:2] == [
        ["good.trn", "ann", "1"],
        ["good.trn", "bob", "0"],
    ]


def test_words_are_parted_as_sclite_parts_them(files):
    """By no other space, nor by what Unicode takes for the end of a line; and its @ is no word."""
    trn(files / "ref.trn", {"ann-1": "a @ b", "bob-1": "c\xa0d e"})
    trn(files / "poor.trn", {"ann-1": "a b", "bob-1": "c d\u2028e"})
    compared(files, "ref.trn", "poor.trn", "--json", "json")
    found = json.loads((files / "json").read_text())
    assert found["reference"]["words"] == 4 and found["arms"][0]["errors"] == {"sub": 2, "del": 0, "ins": 0}


def test_names_may_have_the_suffix_in_capitals_or_an_equals_sign(files):
    (files / "lr=0.1").mkdir()
    for name, texts in {"REF.TRN": REF, "lr=0.1/1.trn": GOOD, "lr=0.1/2.trn": GOOD}.items():
        trn(files / name, texts)
    compared(files, "REF.TRN", "lr=0.1/1.trn,lr=0.1/2.trn", "poor=poor.trn", "--json", "json")
    found = json.loads((files / "json").read_text())
    assert [(one["arm"], one["hypotheses"], one["wer"]) for one in found["arms"]] == [
        ("lr=0.1/1.trn", 2, 10),
        ("poor", 1, 40),
    ]


def test_that_all_utterances_are_taken_for_one_speakers_is_said(files):
    for name in ("ref", "good", "poor"):
        path = files / f"{name}.trn"
        path.write_text(path.read_text().replace("(", "(common_"))
    said = "All utterances count as one speaker's, by the start of their names"
    assert said in " ".join(compared(files, "ref.trn", "good.trn", "poor.trn").split())
    (files / "utt2spk").write_text("common_ann-1 x\ncommon_ann-2 x\ncommon_bob-1 z\n")
    assert said not in " ".join(compared(files, "ref.trn", "good.trn", "poor.trn", "--utt2spk", "utt2spk").split())


def test_a_file_that_is_no_verdict_is_not_written_over(files):
    before = (files / "poor.trn").read_text()
    output = compared(files, "--json", "poor.trn", "ref.trn", "good.trn", status=1)
    assert output == "error: poor.trn: is there, and no JSON; name another file, or remove it\n"
    assert (files / "poor.trn").read_text() == before
    for _ in range(2):
        compared(files, "ref.trn", "good.trn", "--json", "json")


def test_a_missing_hypothesis_is_deleted_and_that_is_said(files):
    trn(files / "poor.trn", {"ann-1": "the cat sat"})
    output = compared(files, "ref.trn", "good.trn", "poor.trn", "--json", "json")
    poor = json.loads((files / "json").read_text())["arms"][1]
    assert (poor["errors"], poor["missing"]) == ({"sub": 0, "del": 7, "ins": 0}, 2)
    assert "missing hypotheses count as all deletions" in output


def test_speakers_are_those_of_utt2spk(files):
    (files / "utt2spk").write_text("ann-1 x\nann-2 y\nbob-1 z\n")
    assert "10 words, 2 speakers" in compared(files, "ref.trn", "good.trn", "poor.trn")
    assert "10 words, 3 speakers" in compared(files, "ref.trn", "good.trn", "poor.trn", "--utt2spk", "utt2spk")


def test_characters_are_counted_with_their_spaces(files):
    trn(files / "poor.trn", REF | {"ann-1": "thecat sat"})
    compared(files, "ref.trn", "poor.trn", "--characters", "--json", "json")
    found = json.loads((files / "json").read_text())
    assert found["reference"]["words"] == sum(map(len, REF.values()))
    assert found["arms"][0]["errors"] == {"sub": 0, "del": 1, "ins": 0}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("hyp.trn", "one two (bob-2)\n", "hyp.trn: bob-2 is not in ref.trn (1 such)"),
        ("hyp.trn", "a (ann-1)\nb (ann-1)\n", "hyp.trn:2: ann-1 comes twice"),
        ("hyp.trn", "one two\n", "hyp.trn:1: 'one two' has no utterance"),
        ("hyp.trn", "{ one / two } (ann-1)\n", "hyp.trn:1: ann-1 has alternatives in braces"),
        ("hyp.trn", "a {one/two} (ann-1)\n", "hyp.trn:1: ann-1 has alternatives in braces"),
        ("hyp.ctm", "ann-1 1 0.0 the\n", "hyp.ctm:1: 'ann-1 1 0.0 the' is no line of a CTM"),
        ("hyp.ctm", "ann-1 1 0 1 the\nann-1 2 0 1 cat\n", "hyp.ctm:2: ann-1 has channels 1 and 2"),
        ("hyp.ctm", "ann-1 1 nan 1 the\n", "hyp.ctm:1: 'ann-1 1 nan 1 the' is no line of a CTM"),
        ("hyp.txt", "the cat sat (ann-1)\n", "hyp.txt: each line ends in (utterance), as those of a .trn"),
        ("ref.trn", "(ann-1)\n(ann-2)\n", "ref.trn: 2 utterances without a word"),
        ("none", None, "hyp.trn: cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_compared_is_one_line(files, name, text, message):
    if text is not None:
        (files / name).write_text(text)
    output = compared(files, "ref.trn", {"ref.trn": "good.trn", "none": "hyp.trn"}.get(name, name), status=1)
    assert output.startswith(f"error: {message}") and output.count("\n") == 1


@pytest.mark.parametrize("system", ["", ",", "good=", "=good.trn", "good=good.trn,"])
def test_a_system_without_a_name_or_a_file_is_refused_in_one_line(files, system):
    output = compared(files, "ref.trn", system, status=1)
    assert output.startswith(f"error: {system!r}: expected a file, or NAME=FILE") and output.count("\n") == 1


def test_a_speaker_said_twice_is_refused(files):
    (files / "utt2spk").write_text("ann-1 x\nann-1 y\nann-2 y\nbob-1 z\n")
    output = compared(files, "ref.trn", "good.trn", "poor.trn", "--utt2spk", "utt2spk", status=1)
    assert output == "error: utt2spk:2: ann-1 comes twice; ids must be unique\n"


def test_characters_are_those_of_the_report(files):
    trn(files / "ref.trn", {"ann-1": "the cat sat on a mat", "bob-1": "nobody heard of it"})
    trn(files / "poor.trn", {"ann-1": "hte catt at hat", "bob-1": "any bod erd fit it o"})
    compared(files, "ref.trn", "poor.trn", "--characters", "--json", "json")
    (found,) = json.loads((files / "json").read_text())["arms"]
    write_scores(
        files / "score", *map(hypotheses.read, (files / "ref.trn", files / "poor.trn")), {"ann-1": "a", "bob-1": "b"}
    )
    assert found["wer"] == pytest.approx(read_counts(files / "score").characters.rate)


def test_one_file_is_not_several_seeds(files):
    output = compared(files, "ref.trn", "good=good.trn", "poor=poor.trn,./poor.trn", status=1)
    assert output == "error: poor: one file as several seeds, which says no more than once; name each seed's own\n"


def test_scores_on_other_references_are_refused(files, tiny):
    dev, test = (next(tiny.glob(f"exp/espeak/*/none-*/greedy-*/score/{split}")) for split in ("dev", "test"))
    assert "is not in" in compared(files, dev, test, status=1)
    other = files / "other"
    other.mkdir()
    for name in ("ref.trn", "hyp.trn"):
        (other / name).write_text((test / name).read_text().replace(" THE ", " A "))
    assert "was scored on references that differ" in compared(files, test, other, status=1)
