"""Decoding with an n-gram model of words: the model, the search against all that could be found, and the stage."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from local.errors import InputError
from local.ngram import vocabulary
from tests.conftest import REPOSITORY, borrow, here
from tests.test_models import configuration

UNITS = " AB"
SENTENCES = ["A BA", "A AB", "BA BA", "A BA AB", "AB"] * 3
needs_kenlm = pytest.mark.skipif(
    not shutil.which("lmplz"), reason="KenLM's lmplz is not on the PATH; local/install_kenlm.sh builds it"
)
needs_module = pytest.mark.skipif(  # it is not there where lmplz came with another toolkit
    find_spec("kenlm") is None, reason="KenLM's Python module is missing; local/install_kenlm.sh builds it"
)


@pytest.fixture(scope="module")
def spoken(tiny, tmp_path_factory) -> Path:
    """A folder in which the tiny run's recognizers decoded dev and test with a model of their transcripts."""
    folder = tmp_path_factory.mktemp("spoken")
    shutil.copytree(tiny / "exp", folder / "exp", symlinks=True)
    borrow(tiny, folder)
    here(folder, 6, 7, "arm=none", "decoder=lexicon")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of three words."""
    folder = tmp_path_factory.mktemp("model")
    command = ["lmplz", "-o", "2", "--discount_fallback", "-S", "50M", "-T", str(folder)]
    text = "".join(f"{sentence}\n" for sentence in SENTENCES)
    arpa = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    (folder / "lm.arpa").write_text(arpa)
    subprocess.run(["build_binary", folder / "lm.arpa", folder / "lm.bin"], capture_output=True, check=True)
    (folder / "words").write_text("".join(f"{word}\n" for word in vocabulary(folder / "lm.arpa")))
    (folder / "further").write_text("")
    return folder


def bigrams(arpa: Path) -> tuple[dict, dict]:
    """Log10 probabilities and backoffs of an ARPA file, by n-gram."""
    scores, backoffs = {}, {}
    for line in arpa.read_text().splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            scores[tuple(fields[1].split())] = float(fields[0])
            backoffs[tuple(fields[1].split())] = float(fields[2]) if len(fields) > 2 else 0.0
    return scores, backoffs


def log10(arpa: Path, words: tuple[str, ...], end: tuple[str, ...] = ("</s>",)) -> float:
    """Of a sentence by the ARPA file."""
    scores, backoffs = bigrams(arpa)
    total = 0.0
    for pair in itertools.pairwise(("<s>", *words, *end)):
        pair = tuple(word if (word,) in scores else "<unk>" for word in pair)
        total += scores[pair] if pair in scores else backoffs[pair[:1]] + scores[pair[1:]]
    return total


def best_paths(frames: torch.Tensor) -> dict[str, float]:
    """The log-probability of each text's best alignment, of all ways to name frames; any spaces part words."""
    found: dict[str, float] = {}
    for path in itertools.product(range(1 + len(UNITS)), repeat=len(frames)):
        text = "".join(UNITS[label - 1] for label, _ in itertools.groupby(path) if label)
        score = sum(frames[i, label].item() for i, label in enumerate(path))
        found[" ".join(text.split())] = max(score, found.get(" ".join(text.split()), -math.inf))
    return found


def test_a_model_of_what_another_archive_holds_is_another_model():
    found = [
        configuration("decoder=lexicon", *more).dirs.lm for more in ((), ("features=mfcc",), ("features.store=audio",))
    ]
    assert len({*found}) == 3  # stage 2 may have left out utterances, whose transcripts the model then lacks


@needs_kenlm
@pytest.mark.parametrize("further", ["", "B\nAAB\n"])
@pytest.mark.parametrize(
    "seed, lm_weight, word_score, prior_weight",
    [(0, 1.0, 0.0, 0.0), (1, 2.0, -1.0, 0.5), (2, 0.5, 1.5, 0.9), (3, 3.0, 0.5, 0.0), (4, 1.0, 3.0, 0.3)],
)
def test_the_search_finds_the_best_of_all_word_sequences(
    model, tmp_path, seed, lm_weight, word_score, prior_weight, further
):
    from local.decoders.lexicon import Lexicon

    model = shutil.copytree(model, tmp_path / "model")
    (model / "further").write_text(further)  # words that it scores as unknown ones

    frames = torch.randn(6, 1 + len(UNITS), generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(1)
    prior = torch.randn(1 + len(UNITS), generator=torch.Generator().manual_seed(seed)).log_softmax(0)
    found = {}
    for text, acoustic in best_paths(frames - prior_weight * prior).items():
        words = tuple(text.split())
        if set(words) <= {"A", "AB", "BA", *further.split()}:
            found[text] = acoustic + lm_weight * log10(model / "lm.arpa", words) + word_score * len(words)
    decoder = Lexicon(UNITS, str(model), 1000, 4, 1000.0, [lm_weight], [word_score], [prior_weight], prior.tolist())
    (text,) = decoder(frames[None], torch.tensor([6]))
    assert found[text] == pytest.approx(max(found.values()), abs=1e-4)
    several = decoder.search(frames.numpy(), 10)
    assert [one.score for one in several] == pytest.approx(sorted(found.values(), reverse=True)[:10], abs=1e-4)
    assert [one.score for one in several] == pytest.approx([found[one.text] for one in several], abs=1e-4)


@needs_kenlm
def test_processes_find_the_same_in_the_same_order(model):
    from local.search import Processes

    settings = {"_target_": "local.decoders.lexicon.Lexicon", "lm": str(model), "beam": 20, "tokens": 4}
    settings |= {"threshold": 20.0, "lm_weight": [1.0], "word_score": [0.0], "prior_weight": [0.0]}
    settings |= {"name": "lexicon", "nbest": 3}
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(9, 4, generator=generator).log_softmax(1).numpy() for _ in range(20)]
    found = []
    for workers in (1, 2):
        with Processes(settings, UNITS, workers) as decoder:
            found.append(decoder.search(frames, 3, {"lm_weight": 2.0, "word_score": 1.0, "prior_weight": 0.0}))
    assert found[0] == found[1] and {len(each) for each in found[0]} == {3}


@needs_kenlm
def test_perplexity_is_that_of_the_arpa_file(model):
    from local.ngram import Model

    sentences = [("A", "BA"), ("AB", "AB")]
    expected = 10 ** (-sum(log10(model / "lm.arpa", sentence) for sentence in sentences) / 6)
    found = Model(model).measures([*map(list, sentences)])
    assert found == {"perplexity": pytest.approx(expected, rel=1e-4), "unknown": 0.0}
    assert Model(model).measures([["A", "C"]])["unknown"] == 0.5


@needs_kenlm
def test_dev_chooses_and_test_is_decoded_with_that(spoken):
    (made,) = spoken.glob("exp/espeak/*/none-*/lexicon-*")
    trials = json.loads((made / "tuning.json").read_text())
    assert len(trials["dev"]) == len(trials["test"]) == 10
    for split in trials:  # the best is first, and on test what choosing there would have claimed
        assert trials[split][0]["wer"] == min(trial["wer"] for trial in trials[split])
    chosen = {key: trials["dev"][0][key] for key in ("lm_weight", "word_score", "prior_weight")}
    (on_test,) = (t["wer"] for t in trials["test"] if {key: t[key] for key in chosen} == chosen)
    for split, wer in (("dev", trials["dev"][0]["wer"]), ("test", on_test)):
        assert (made / "score" / split / "wer").read_text().startswith(f"%WER {wer:.2f} ")
    (lm,) = spoken.glob("exp/lm/ngram-*")
    words = set((lm / "words").read_text().split())
    for split in ("dev", "test"):
        heard = [line.split()[1:] for line in (made / split / "text").read_text().splitlines()]
        assert {word for each in heard for word in each} <= words


@needs_kenlm
def test_the_model_is_of_the_labeled_transcripts_and_is_made_once(spoken, caplog):
    (train,) = spoken.glob("data/espeak-*/train/text")
    (lm,) = spoken.glob("exp/lm/ngram-*")
    spelled = {word for line in train.read_text().splitlines() for word in line.split()[1:]}
    assert set((lm / "words").read_text().split()) == spelled
    caplog.clear()
    here(spoken, 6, 6, "arm=none", "decoder=lexicon")
    assert caplog.text.count("done already") == 2  # the model and the hypotheses


@needs_kenlm
def test_another_text_makes_another_model_and_a_changed_one_makes_it_anew(spoken, caplog):
    (spoken / "lm.txt").write_text("the quick brown fox\nthe lazy dog\n" * 5)
    settings = ("arm=none", "decoder=lexicon", "lm.text=lm.txt", "lm.order=2")
    here(spoken, 6, 6, *settings)
    made = {path for path in spoken.glob("exp/lm/ngram-*") if "FOX" in (path / "words").read_text()}
    assert len(made) == 1
    (train,) = spoken.glob("data/espeak-*/train/text")  # whose words are not lost to the text
    spelled = {word for line in train.read_text().splitlines() for word in line.split()[1:]}
    assert spelled < set((next(iter(made)) / "words").read_text().split())
    (spoken / "lm.txt").write_text("the quick brown cat\n" * 7)
    here(spoken, 6, 6, *settings)
    assert "lm.txt changed" in caplog.text and "CAT" in (made.pop() / "words").read_text()


@needs_kenlm
def test_a_pronunciation_dictionary_adds_its_words_and_says_which_it_cannot(spoken, caplog):
    lines = (";;; a comment", "fox F AA1 K S", "fox(2) F AO1 K S # another", "naïve N AY2 IY1 V", "zoo  Z UW1")
    (spoken / "cmudict.dict").write_text("".join(f"{line}\n" for line in lines))
    here(spoken, 6, 6, "arm=none", "decoder=lexicon", "lm.words=cmudict.dict")
    (made,) = (path for path in spoken.glob("exp/lm/ngram-*") if (path / "further").read_text())
    assert (made / "further").read_text() == "FOX\nZOO\n"
    assert "lm.words: 1 words of it have characters that the units lack" in caplog.text
    with pytest.raises(InputError, match="lm.words=nowhere: cannot be read as text"):
        here(spoken, 6, 6, "arm=none", "decoder=lexicon", "lm.words=nowhere")


@needs_kenlm
def test_sentences_of_dev_are_refused_where_stage_1_did_not_see_the_text(spoken):
    (dev,) = spoken.glob("data/espeak-*/dev/text")
    (spoken / "leak.txt").write_text("".join(line.partition(" ")[2] for line in dev.open()))
    before = {*spoken.glob("exp/lm/*")}
    with pytest.raises(InputError, match="^lm and dev share .* what is measured on must be in no other split"):
        here(spoken, 6, 6, "arm=none", "decoder=lexicon", "lm.text=leak.txt")
    assert {path for path in spoken.glob("exp/lm/*/")} <= before


def test_a_split_that_the_corpus_lacks_is_named_by_stage_6(tiny, tmp_path):
    with pytest.raises(InputError, match=r"^decoder.splits: tset is no split of this corpus; expected pretrain, train"):
        here(borrow(tiny, tmp_path), 5, 6, "arm=none", "decoder.splits=[dev,tset]")


@pytest.mark.parametrize(
    "decoder, setting, message",
    [
        ("lexicon", "decoder.beam=0", "decoder.beam=0: expected a whole number, 1 or more"),
        ("beam", "decoder.beam=2.5", "decoder.beam=2.5: expected a whole number"),
        ("lexicon", "decoder.threshold=-1", "decoder.threshold=-1: expected a number above 0"),
        ("lexicon", "decoder.lm_weight=[]", "decoder.lm_weight=.*: expected a list of numbers"),
        ("lexicon", "decoder.word_score=[0,a]", "decoder.word_score=.*: expected a list of numbers"),
        ("lexicon", "lm.order=0", "lm.order=0: expected a whole number"),
        ("lexicon", "lm.order=9", "lm.order=9: expected 6 at most"),
        ("lexicon", "lm.prune=[]", r"lm.prune=\[\]: expected a list of whole numbers"),
        ("lexicon", "lm.prune=[0,2,1]", "lm.prune=.*: expected a list of whole numbers, none less than that before"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_the_training(tiny, tmp_path, decoder, setting, message):
    folder = borrow(tiny, tmp_path)
    with pytest.raises(InputError, match=f"^{message}"):
        here(folder, 5, 6, "arm=none", f"decoder={decoder}", setting, "recognizer.updates=400")
    assert not list(folder.glob("exp/espeak/*/none-*/"))


@needs_kenlm
def test_pruning_leaves_rare_ngrams_out(spoken):
    (spoken / "some.txt").write_text("a quick fox\na quick fox\na lazy dog\n" * 3 + "one rare lion\n")
    sizes = []
    for prune in ("[0,0,0]", "[0,0,1]"):
        before = {*spoken.glob("exp/lm/ngram-*")}
        here(spoken, 6, 6, "arm=none", "decoder=lexicon", "lm.text=some.txt", f"lm.prune={prune}")
        (new,) = {*spoken.glob("exp/lm/ngram-*")} - before
        sizes.append((new / "lm.bin").stat().st_size)
    assert sizes[1] < sizes[0]


def test_without_cmake_the_builder_of_kenlm_names_it(tmp_path):
    """Run beside an environment that has all that Python needs, on a PATH of what a bare system has."""
    for tool in ("bash", "dirname", "cmp", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    (tmp_path / "python").write_text(f'#!/bin/sh\ncase "$2" in *kenlm*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / "local/install_kenlm.sh"], env={"PATH": str(tmp_path), "VIRTUAL_ENV": sys.prefix + "/."},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: cmake is not there; on Debian and Ubuntu: apt-get")


def test_without_kenlm_it_says_how_to_get_it(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny / "exp", tmp_path / "exp", symlinks=True)
    borrow(tiny, tmp_path)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    for first, updates in ((6, 4), (5, 400)):  # before a training of so many updates too
        with pytest.raises(InputError, match=r"lmplz: not on the PATH, .*local/install_kenlm.sh"):
            here(tmp_path, first, 6, "arm=none", "decoder=lexicon", f"recognizer.updates={updates}")
    assert not list(tmp_path.glob("exp/lm/*/")) and not list(tmp_path.glob("exp/espeak/*/*/lexicon-*/"))
    (told,) = tmp_path.glob("exp/espeak/*/none-*.failed")  # of the recognizer that was not trained
    assert told.read_text().startswith("lmplz: not on the PATH") and not told.with_suffix("").exists()
    assert os.access(REPOSITORY / "local/install_kenlm.sh", os.X_OK)


@needs_kenlm
def test_units_without_spaces_are_refused(model):
    from local.decoders.lexicon import Lexicon

    with pytest.raises(InputError, match="decoder=lexicon spells words in characters"):
        Lexicon(["sil", "aa"], str(model), 10, 2, 10.0, [1.0], [0.0], [0.0])


@needs_kenlm
def test_a_word_that_the_units_do_not_spell_is_refused_by_name(model):
    from local.decoders.lexicon import Lexicon

    with pytest.raises(
        InputError, match=r"words: 'A?BA?' has 'B', expected only units.inventory=' A'; normalize"
    ) as error:
        Lexicon(" A", str(model), 10, 2, 10.0, [1.0], [0.0], [0.0])
    assert "\n" not in str(error.value)


def test_an_arpa_file_that_is_cut_is_refused(tmp_path):
    (tmp_path / "lm.arpa").write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<s>\t0\n-1\tA\n")
    with pytest.raises(InputError, match="lm.arpa: ends before"):
        vocabulary(tmp_path / "lm.arpa")
