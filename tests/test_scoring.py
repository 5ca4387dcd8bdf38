"""Error counts, against hand counts and against sclite itself where it is installed."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.errors import InputError
from local.scoring import CELLS, Counts, align, count_characters, count_words, pairs, read_counts, write_scores

SCLITE = shutil.which("sclite") or shutil.which("sclite", path="/usr/lib/sctk/bin")
tokens = st.lists(st.sampled_from("abcd"), max_size=9)
REFERENCES = {"ann-1": "the cat sat", "ann-2": "on the mat", "bob-1": "one two three four"}
HYPOTHESES = {"ann-1": "the cap sat", "ann-2": "the mat now"}  # sub; del and ins; nothing at all
SPEAKERS = {"ann-1": "ann", "ann-2": "ann", "bob-1": "bob"}


def levenshtein(reference: list[str], hypothesis: list[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, token in enumerate(reference, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (token != other))
    return row[-1]


@given(tokens, tokens)
def test_counts_are_those_of_an_alignment(reference, hypothesis):
    (ops,) = align([reference], [hypothesis])
    aligned, found = pairs(reference, hypothesis, ops), count_words([" ".join(reference)], [" ".join(hypothesis)])
    assert [r for r, _ in aligned if r] == reference and [h for _, h in aligned if h] == hypothesis
    assert found.length == len(reference) == ops.count("C") + found.sub + found.del_
    assert len(hypothesis) == ops.count("C") + found.sub + found.ins
    assert levenshtein(reference, hypothesis) <= found.errors <= len(reference) + len(hypothesis)


def plainly(reference: list[str], hypothesis: list[str]) -> str:
    """The alignment of one pair, a cell at a time."""
    rows = [[3 * j for j in range(len(hypothesis) + 1)]]
    for i, token in enumerate(reference, 1):
        row = [3 * i]
        for j, other in enumerate(hypothesis):
            row.append(min(rows[-1][j] + 4 * (token != other), rows[-1][j + 1] + 3, row[j] + 3))
        rows.append(row)
    ops, i, j = "", len(reference), len(hypothesis)
    while i or j:
        cost = 4 * (reference[i - 1] != hypothesis[j - 1]) if i and j else None
        if i and j and rows[i][j] == rows[i - 1][j - 1] + cost:
            i, j, ops = i - 1, j - 1, ops + ("S" if cost else "C")
        elif j and rows[i][j] == rows[i][j - 1] + 3:
            j, ops = j - 1, ops + "I"
        else:
            i, ops = i - 1, ops + "D"
    return ops[::-1]


@given(st.lists(st.tuples(tokens, tokens), max_size=6), st.sampled_from([1, 60, CELLS]))
def test_pairs_are_aligned_in_a_block_as_they_are_alone(texts, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("local.scoring.CELLS", cells)
        found = align([reference for reference, _ in texts], [hypothesis for _, hypothesis in texts])
    assert found == [plainly(*pair) for pair in texts]


@given(tokens)
def test_a_text_has_no_errors_against_itself(reference):
    text = " ".join(reference)
    assert count_words([text], [text]) == Counts(0, 0, 0, len(reference))


@given(tokens, tokens)
def test_characters_cost_what_words_cost(reference, hypothesis):
    words = count_words([" ".join(reference)], [" ".join(hypothesis)])
    characters = count_characters("".join(reference), "".join(hypothesis))
    assert 4 * words.sub + 3 * (words.del_ + words.ins) == 4 * characters.sub + 3 * (characters.del_ + characters.ins)


def test_counts_add_up():
    assert Counts(1, 2, 3, 10) + Counts(1, 0, 0, 10) == Counts(2, 2, 3, 20)
    assert (Counts(1, 2, 3, 10) + Counts(1, 0, 0, 10)).rate == 35.0
    assert Counts().rate is None


def sclite_counts(directory: Path) -> dict[str, str]:
    """What sclite finds in `ref.trn` and `hyp.trn`, "correct sub del ins", for each utterance."""
    if SCLITE is None:
        pytest.skip("sclite is not installed (Debian: sctk)")
    command = [SCLITE, "-s", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-o", "pralign", "stdout"]
    text = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"id: \((.*?)\)\nScores: \(#C #S #D #I\) (.*?) *\n", text))


def our_counts(directory: Path) -> dict[str, str]:
    """The same from `per_utt`."""
    lines = (line.split() for line in (directory / "per_utt").read_text().splitlines())
    counts = {fields[0]: fields[2:] for fields in lines if fields[1] == "#csid"}
    return {utterance: " ".join((c, s, d, i)) for utterance, (c, s, i, d) in counts.items()}


def test_counts_equal_those_of_sclite(tmp_path):
    awkward = [
        ("a b c d", "a c d e"),
        ("x y", "x z z"),
        ("", "q"),
        ("q", ""),
        ("The CAT", "the cat"),
        ("b d e e d c b d", "e b c e a d e d d"),  # equal costs: 5 errors of sclite's, 6 of kaldialign's
        ("c b b f e e a e c h h", "e a g f e g h b"),  # and 9 of sclite's, 8 of kaldialign's
    ]
    pairs = [(r.split(), h.split()) for r, h in awkward]
    rng = random.Random(0)
    for _ in range(2000):
        words = "abcdefgh"[: rng.randint(1, 8)]
        pairs.append(tuple(rng.choices(words, k=rng.randint(0, 14)) for _ in range(2)))
    sides = [{f"s_{i:05d}": " ".join(pair[side]) for i, pair in enumerate(pairs)} for side in (0, 1)]
    write_scores(tmp_path, *sides, dict.fromkeys(sides[0], "s"))
    assert our_counts(tmp_path) == sclite_counts(tmp_path)


def test_counts_equal_those_of_sclite_on_what_recognizers_put_out(tiny):
    directories = [path.parent for path in tiny.glob("exp/espeak/*/*/*/score/*/per_utt")]
    assert len(directories) >= 12  # dev and test of three arms with two seeds
    assert any(re.search(r"^\w.* \(", (d / "hyp.trn").read_text(), re.MULTILINE) for d in directories)
    for directory in directories:
        assert our_counts(directory) == sclite_counts(directory)


def test_sclite_takes_the_speaker_from_the_start_of_our_utterance_ids(tmp_path):
    if SCLITE is None:
        pytest.skip("sclite is not installed (Debian: sctk)")
    write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS)
    command = [SCLITE, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "rm", "-o", "rsum", "stdout"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.search(r"ann +\| +2 +6 \| +4 +1 +1 +1 +3 ", text) and re.search(r"bob +\| +1 +4 \| +0 +0 +4 +0 +4 ", text)


def test_files_hold_kaldis_lines_and_read_back(tmp_path):
    found = write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS)
    assert found["wer"] == 70.0 and found["errors"] == {"sub": 1, "del": 5, "ins": 1}
    wer, cer = (tmp_path / "wer").read_text().splitlines()
    assert wer == "%WER 70.00 [ 7 / 10, 1 ins, 5 del, 1 sub ]"
    # characters: 1 of 11 substituted; "on " deleted and " now" inserted, of 10; all 18 deleted
    assert cer == "%CER 66.67 [ 26 / 39, 4 ins, 21 del, 1 sub ]"
    scores = read_counts(tmp_path)
    assert scores.speakers == ("ann", "bob") and scores.utterances.tolist() == [2, 1]
    assert scores.words.length.tolist() == [6, 4] and scores.words.errors.tolist() == [3, 4]
    assert scores.characters.length.tolist() == [21, 18] and scores.characters.errors.tolist() == [8, 18]
    assert np.isclose(scores.characters.rate, 100 * 26 / 39)
    assert (tmp_path / "hyp.trn").read_text().splitlines() == ["the cap sat (ann-1)", "the mat now (ann-2)", "(bob-1)"]


def test_alignments_are_written_in_columns_as_kaldi_does(tmp_path):
    write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS)
    assert (tmp_path / "per_utt").read_text().splitlines()[4:8] == [
        "ann-2 ref  on  the mat ***",
        "ann-2 hyp  *** the mat now",
        "ann-2 op   D   C   C   I",
        "ann-2 #csid 2 0 1 1",
    ]


def test_a_speaker_without_a_word_keeps_a_line(tmp_path):
    write_scores(tmp_path, {"a-1": "", "b-1": "yes"}, {"a-1": "no"}, {"a-1": "a", "b-1": "b"})
    scores = read_counts(tmp_path)
    assert scores.words.length.tolist() == [0, 1] and scores.words.ins.tolist() == [1, 0]


def test_what_cannot_be_scored_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^eve-1: a hypothesis without a reference"):
        write_scores(tmp_path, REFERENCES, {"eve-1": "hello"}, SPEAKERS)
    with pytest.raises(InputError, match="hold no word"):
        write_scores(tmp_path, {"ann-1": ""}, {}, SPEAKERS)
    with pytest.raises(InputError, match="not found"):
        read_counts(tmp_path / "nowhere")
