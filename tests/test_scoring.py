"""Error counts, against hand counts and against sclite itself where it is installed."""

import itertools
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from local import manifest
from local.config import CONF
from local.corpora import normalizer
from local.edits import CELLS, Counts, align, count_characters, count_words, sides
from local.errors import InputError
from local.manifest import Utterance
from local.scoring import groups, read_alignments, read_counts, write_scores
from local.stage import stage_named
from tests.conftest import printed

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
    said, heard = sides(reference, hypothesis, ops)
    found = count_words([" ".join(reference)], [" ".join(hypothesis)])
    assert [r for r in said if r != "***"] == reference and [h for h in heard if h != "***"] == hypothesis
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
        patch.setattr("local.edits.CELLS", cells)
        found = align([reference for reference, _ in texts], [hypothesis for _, hypothesis in texts])
    assert found == [plainly(*pair) for pair in texts]


@given(tokens)
def test_a_text_has_no_errors_against_itself(reference):
    text = " ".join(reference)
    assert count_words([text], [text]) == Counts(0, 0, 0, len(reference))


def all_counts(reference: str, hypothesis: str) -> set[tuple[int, int, int]]:
    """Substitutions, deletions and insertions of every alignment that there is."""
    table: dict[tuple[int, int], set] = {(0, 0): {(0, 0, 0)}}
    for i, j in itertools.product(range(len(reference) + 1), range(len(hypothesis) + 1)):
        found = table.setdefault((i, j), set())
        if i and j:
            wrong = reference[i - 1] != hypothesis[j - 1]
            found |= {(s + wrong, d, n) for s, d, n in table[i - 1, j - 1]}
        if i:
            found |= {(s, d + 1, n) for s, d, n in table[i - 1, j]}
        if j:
            found |= {(s, d, n + 1) for s, d, n in table[i, j - 1]}
    return table[len(reference), len(hypothesis)]


@given(tokens, tokens)
def test_of_characters_the_cheapest_alignment_with_the_fewest_errors_is_counted(reference, hypothesis):
    found = count_characters("".join(reference), "".join(hypothesis))
    possible = all_counts("".join(reference), "".join(hypothesis))
    best = min(possible, key=lambda counts: (4 * counts[0] + 3 * sum(counts[1:]), sum(counts)))
    assert (found.sub, found.del_, found.ins, found.length) == (*best, len(reference))


def test_counts_add_up():
    assert Counts(1, 2, 3, 10) + Counts(1, 0, 0, 10) == Counts(2, 2, 3, 20)
    assert (Counts(1, 2, 3, 10) + Counts(1, 0, 0, 10)).rate == 35.0
    assert Counts().rate is None


def sclite_counts(sctk: Path, directory: Path) -> dict[str, str]:
    """What sclite finds in `ref.trn` and `hyp.trn`, "correct sub del ins", for each utterance."""
    command = [
        sctk / "sclite",
        "-s",
        "-r",
        "ref.trn",
        "trn",
        "-h",
        "hyp.trn",
        "trn",
        "-i",
        "spu_id",
        "-o",
        "pralign",
        "stdout",
    ]
    text = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"id: \((.*?)\)\nScores: \(#C #S #D #I\) (.*?) *\n", text))


def our_counts(directory: Path) -> dict[str, str]:
    """The same from `per_utt`."""
    lines = (line.split() for line in (directory / "per_utt").read_text().splitlines())
    counts = {fields[0]: fields[2:] for fields in lines if fields[1] == "#csid"}
    return {utterance: " ".join((c, s, d, i)) for utterance, (c, s, i, d) in counts.items()}


def test_counts_equal_those_of_sclite(tmp_path, sctk):
    awkward = [
        ("a b c d", "a c d e"),
        ("x y", "x z z"),
        ("", "q"),
        ("q", ""),
        ("The CAT", "the cat"),
        ("b d e e d c b d", "e b c e a d e d d"),  # equal costs: 5 errors of sclite's, 6 are possible
        ("c b b f e e a e c h h", "e a g f e g h b"),  # and 9 of sclite's, where 8 are
    ]
    pairs = [(r.split(), h.split()) for r, h in awkward]
    rng = random.Random(0)
    for _ in range(2000):
        words = "abcdefgh"[: rng.randint(1, 8)]
        pairs.append(tuple(rng.choices(words, k=rng.randint(0, 14)) for _ in range(2)))
    sides = [{f"s_{i:05d}": " ".join(pair[side]) for i, pair in enumerate(pairs)} for side in (0, 1)]
    write_scores(tmp_path, *sides, dict.fromkeys(sides[0], "s"))
    assert our_counts(tmp_path) == sclite_counts(sctk, tmp_path)


def test_counts_equal_those_of_sclite_on_what_recognizers_put_out(tiny, sctk):
    directories = [path.parent for path in tiny.glob("exp/espeak/*/*/*/score/*/per_utt")]
    assert len(directories) >= 12  # dev and test of three arms with two seeds
    assert any(re.search(r"^\w.* \(", (d / "hyp.trn").read_text(), re.MULTILINE) for d in directories)
    for directory in directories:
        assert our_counts(directory) == sclite_counts(sctk, directory)


def test_sclite_takes_the_speaker_from_the_start_of_our_utterance_ids(tmp_path, sctk):
    write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS)
    command = [sctk / "sclite", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "rm", "-o", "rsum", "stdout"]
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
    with pytest.raises(InputError, match=r"eve-1: a hypothesis without a reference \(1 such\); score the same split$"):
        write_scores(tmp_path / "out", REFERENCES, {"eve-1": "hello"}, SPEAKERS)
    with pytest.raises(InputError, match="hold no word"):
        write_scores(tmp_path / "out", {"ann-1": ""}, {}, SPEAKERS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="not found"):
        read_counts(tmp_path / "nowhere")


def test_groups_are_scored_by_gender_and_by_duration(tmp_path):
    durations = {"ann-1": 1.99, "ann-2": 2.0, "bob-1": 31.0}
    utterances = [Utterance(u, SPEAKERS[u], "", durations[u], gender="f" if u < "b" else "") for u in REFERENCES]
    write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS, grouped={u.id: groups(u) for u in utterances})
    header, *rows = (tmp_path / "per_group").read_text().splitlines()
    # of bob nobody knows the gender
    assert rows == [
        "gender=f 2 6 1 1 1 50.00 21 1 3 4 38.10",
        "duration=<2s 1 3 1 0 0 33.33 11 1 0 0 9.09",
        "duration=2-5s 1 3 0 1 1 66.67 10 0 3 4 70.00",
        "duration=>15s 1 4 0 4 0 100.00 18 0 18 0 100.00",
    ]
    assert header == (tmp_path / "per_spk").read_text().splitlines()[0].replace("speaker", "group")
    between = [Utterance("u", "s", "", seconds, gender="m") for seconds in (4.99, 5.0, 14.99)]
    names = ["duration=2-5s", "duration=5-10s", "duration=10-15s"]
    assert list(map(groups, between)) == [["gender=m", name] for name in names]


def test_confusions_and_the_worst_utterances_are_listed_most_errors_first(tmp_path):
    references = {"a-1": "one two two", "a-2": "two", "b-1": "one", "b-2": "six"}
    hypotheses = {"a-1": "one too too", "a-2": "too", "b-1": "", "b-2": "one six"}
    write_scores(tmp_path, references, hypotheses, {u: u[0] for u in references})
    # of equal counts in the order of the alphabet
    assert (tmp_path / "confusions").read_text().splitlines() == ["3 two too", "1 *** one", "1 one ***"]
    assert (tmp_path / "worst").read_text().splitlines() == [
        "a-1 2 3 66.67",
        *(f"{u} 1 1 100.00" for u in ("a-2", "b-1", "b-2")),
    ]
    many = {f"s-{i:02d}": " ".join("x" * (1 + i % 3)) for i in range(40)}
    write_scores(tmp_path, many, {}, dict.fromkeys(many, "s"))
    worst = [line.split()[:2] for line in (tmp_path / "worst").read_text().splitlines()]
    expected = [(u, text) for errors in (3, 2, 1) for u, text in many.items() if len(text.split()) == errors]
    assert worst == [[u, str(len(text.split()))] for u, text in expected[:20]]


def test_alignments_read_back(tmp_path):
    references = REFERENCES | {"eve-1": "a *** b", "eve-2": ""}
    hypotheses = HYPOTHESES | {"eve-1": "*** b c", "eve-2": "oh"}
    write_scores(tmp_path, references, hypotheses, dict.fromkeys(references, "s"))
    found = read_alignments(tmp_path)
    assert {one.id: one.reference for one in found} == {u: text.split() for u, text in references.items()}
    assert {one.id: one.hypothesis for one in found} == {u: hypotheses.get(u, "").split() for u in references}


def test_the_command_shows_what_was_said_above_what_was_heard(tmp_path):
    write_scores(tmp_path, REFERENCES | {"ann-3": "yes"}, HYPOTHESES | {"ann-3": "yes"}, SPEAKERS | {"ann-3": "ann"})
    shown = printed(tmp_path, "local.align", ".")  # the worst first, and none that is right
    assert [line for line in shown.splitlines() if ":" in line] == [
        "bob-1: 4 errors of 4 words, 100.00 %",
        "ann-2: 2 errors of 3 words, 66.67 %",
        "ann-1: 1 errors of 3 words, 33.33 %",
    ]
    assert "\nref on  the mat ***\nhyp *** the mat now\n    D           I\n" in shown
    assert "\x1b" not in shown
    assert [x for x in printed(tmp_path, "local.align", ".", "--all").split() if x.endswith("-3:")] == ["ann-3:"]
    asked = printed(tmp_path, "local.align", ".", "ann-3", "ann-1")
    assert re.findall(r"^\S+-\d", asked, re.MULTILINE) == ["ann-3", "ann-1"]


def test_on_a_terminal_errors_are_in_color_and_lines_as_long_as_it_is_wide(tmp_path):
    words = [f"word{i}" for i in range(30)]
    write_scores(tmp_path, {"a-1": " ".join(words)}, {"a-1": " ".join([*words[:29], "other"])}, {"a-1": "a"})
    shown = printed(tmp_path, "local.align", ".", FORCE_COLOR="1", COLUMNS="40", TERM="xterm")
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert re.search(r"\x1b\[[\d;]+mother", shown) and not re.search(r"\x1b\[[\d;]+mword1 ", shown)
    assert max(map(len, plain.splitlines())) <= 40
    assert " ".join(line[4:] for line in plain.splitlines() if line.startswith("ref")).split() == words


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((".", "eve-1"), "error: .: has no utterance eve-1, but 3 such as ann-1; see its per_utt\n"),
        (("nowhere",), "error: nowhere/per_utt: not found; score this directory first\n"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path, arguments, message):
    write_scores(tmp_path, REFERENCES, HYPOTHESES, SPEAKERS)
    assert printed(tmp_path, "local.align", *arguments, status=1) == message


@pytest.mark.parametrize(
    "name, damaged",
    [("per_utt", lambda text: text[:60]), ("worst", lambda text: b"\n" + text), ("worst", lambda _: b"\xff")],
)
def test_a_score_that_is_damaged_is_refused_in_one_line(tmp_path, name, damaged):
    write_scores(tmp_path / "test", REFERENCES, HYPOTHESES, SPEAKERS)
    above = printed(tmp_path, "local.align", ".", status=1)
    assert above == "error: per_utt: not found; name the folder of a split: test\n"
    path = tmp_path / "test" / name
    path.write_bytes(damaged(path.read_bytes()))
    found = printed(tmp_path, "local.align", "test", status=1)
    assert found.startswith(f"error: test/{name}: is not as stage 7 wrote it (") and found.count("\n") == 1


def stage(folder: Path, references: dict[str, str], heard: str, *settings: str) -> Path:
    """Run stage 7 on a data directory of these references and a decoder's file of what was heard."""
    utterances = [Utterance(u, SPEAKERS[u], "/a.wav", 2.5, text, "f") for u, text in references.items()]
    manifest.write(folder / "data/test", utterances)
    manifest.write(folder / "features/test", utterances)
    (folder / "decode/test").mkdir(parents=True)
    (folder / "decode/test/text").write_text(heard)
    directories = [f"dirs.{name}={folder / name}" for name in ("data", "features", "decode")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["corpus=kaldi", "arm=none", "decoder.splits=[test]", *directories, *settings])
    stage_named("score").body(cfg, folder / "score")
    return folder / "score/test"


def test_missing_hypotheses_count_as_deletions_and_are_told(tmp_path, caplog):
    stage(tmp_path, REFERENCES, "ann-1 THE CAT SAT\n")
    (line,) = [record for record in caplog.records if "%WER" in record.message]
    assert line.levelname == "WARNING" and line.message.endswith(
        "test %WER 70.00 [ 7 / 10, 0 ins, 7 del, 0 sub ]; 2 hypotheses are missing, all of whose words count as deleted"
    )


def test_an_empty_reference_is_told_and_all_that_is_heard_there_is_inserted(tmp_path, caplog):
    settings = ["units=phones48", "corpus=timit", "corpus.root=/nowhere"]
    stage(tmp_path, {"ann-1": "q q", "ann-2": "aa"}, "ann-1 b\nann-2 aa\n", *settings)
    (line,) = [record.message for record in caplog.records if "%PER" in record.message]
    assert "1 ins, 0 del, 0 sub ]; 1 references are empty, where all that is heard counts as inserted" in line


def test_nothing_is_said_beside_the_rate_where_nothing_is_odd(tmp_path, caplog):
    out = stage(tmp_path, REFERENCES, "".join(f"{u} {text}\n" for u, text in REFERENCES.items()))
    (line,) = [record for record in caplog.records if "%WER" in record.message]
    assert line.levelname == "INFO" and line.message.endswith("0 sub ]")
    assert (out / "per_group").read_text().splitlines()[1:] == [
        f"{name} 3 10 0 0 0 0.00 39 0 0 0 0.00" for name in ("gender=f", "duration=2-5s")
    ]
    assert (out / "worst").read_text() == (out / "confusions").read_text() == ""
    assert printed(out, "local.align", ".") == "no utterance has an error\n"


@pytest.mark.parametrize(
    "heard, message",
    [
        (
            "ann-1 A\nann-1 B\n",
            "/text:2: ann-1 comes twice, expected an utterance once; remove one of the two",
        ),
        ("eve-1 A\n", "eve-1: a hypothesis without a reference (1 such); score the same split"),
    ],
)
def test_hypotheses_that_are_of_no_utterance_or_twice_of_one_are_refused_in_one_line(tmp_path, heard, message):
    with pytest.raises(InputError) as found:
        stage(tmp_path, REFERENCES, heard)
    assert message in str(found.value) and len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    "settings, text, expected",
    [
        (("corpus=librispeech",), " it's  A Dog", "IT'S A DOG"),
        (("corpus=kaldi",), "Grüße, x-1", "GRÜSSE, X-1"),
        (("corpus=espeak",), "o'clock", "O'CLOCK"),
        (("corpus=timit",), "h# ax-h  H#", "h# ax-h H#"),
        (("corpus=timit", "corpus.transcript=words"), "she had", "SHE HAD"),
    ],
)
def test_each_corpus_normalizes_text_without_its_audio(settings, text, expected):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        normalize = normalizer(compose("config", [*settings, "corpus.root=/nowhere"]))
    assert normalize(text) == normalize(expected) == expected


def test_reference_and_hypothesis_are_normalized_alike(tmp_path):
    out = stage(tmp_path, {"ann-1": "It's  the CAT"}, "ann-1 it's THE cat\n")
    assert (out / "ref.trn").read_text() == (out / "hyp.trn").read_text() == "IT'S THE CAT (ann-1)\n"
