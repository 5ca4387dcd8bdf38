"""The language model that stage 6 makes before it decodes with one: KenLM's n-grams, and their perplexity."""

import json
import logging
import shutil
import subprocess
from itertools import chain
from pathlib import Path

from local import audit, manifest
from local.config import check_whole, plain
from local.corpora import normalizer
from local.errors import InputError
from local.labels import subset
from local.stage import stage
from local.text import fold

log = logging.getLogger(__name__)
TOOLS = ("lmplz", "build_binary")
HIGHEST = 6  # order that KenLM is built for


def _check(cfg) -> None:
    check_whole("lm.order", cfg.lm.order)
    if cfg.lm.order > HIGHEST:
        raise InputError(f"lm.order={cfg.lm.order}: expected {HIGHEST} at most, which KenLM is built for")
    prune = cfg.lm.prune
    if not prune or not all(type(each) is int and each >= 0 for each in prune) or list(prune) != sorted(prune):
        raise InputError(f"lm.prune={prune}: expected a list of whole numbers, none less than that before, as [0,0,1]")
    for tool in TOOLS:
        if not shutil.which(tool):
            raise InputError(
                f"{tool}: not on the PATH, and decoder={cfg.decoder.name} needs it; local/install_kenlm.sh"
            )


@stage(writes="lm", reads=("data", "features"), check=_check)
def run(cfg, partial) -> list[str]:
    from local.ngram import Model, vocabulary

    lm, folding = cfg.lm, plain(cfg, "units")["folding"]
    train = manifest.used(cfg, "train")
    sentences = (fold(u.text, folding) for u in subset(train, cfg.labels.hours, cfg.labels.seed))
    if lm.text is not None:  # which stage 1 has seen only if it was run with it
        normalize = normalizer(cfg)
        audit.shared_with_text(lm.text, Path(cfg.dirs.data), normalize, cfg.corpus.allow_overlap)
        sentences = chain(sentences, (fold(normalize(line), folding) for line in audit.sentences_of(lm.text)))
    text, arpa = partial / "text.tmp", partial / "lm.arpa"
    with open(text, "w", encoding="utf-8") as file:  # a text may be larger than memory
        file.writelines(f"{sentence}\n" for sentence in sentences if sentence)
    prune = map(str, [*lm.prune, *lm.prune[-1:] * lm.order][: lm.order])
    more = ["--discount_fallback", "-S", "20%", "-T", partial, "--text", text, "--arpa", arpa]
    _run(["lmplz", "--order", str(lm.order), "--prune", *prune, *more], "lm.text")
    text.unlink()
    _run(["build_binary", "trie", arpa, partial / "lm.bin"], "its ARPA file")
    words = vocabulary(arpa)
    (partial / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    further = _further(cfg, words)
    (partial / "further").write_text("".join(f"{word}\n" for word in further), encoding="utf-8")
    arpa.unlink()  # the binary file holds all of it
    dev = manifest.used(cfg, "dev")
    held = Model(partial).measures([fold(u.text, folding).split() for u in dev])
    (partial / "summary.json").write_text(json.dumps({"words": len(words)} | held, indent=1) + "\n")
    log.info(
        "lm: %s: %d words and %d further ones; on dev perplexity %.0f, and %.1f %% of words are unknown to it",
        cfg.dirs.lm, len(words), len(further), held["perplexity"], 100 * held["unknown"],
    )  # fmt: skip
    return [path for path in (lm.text, lm.words) if path]


def _further(cfg, words: list[str]) -> list[str]:
    """Those of the list lm.words that the model does not know and the units spell."""
    from local.ngram import listed

    if cfg.lm.words is None:
        return []
    lines = audit.sentences_of(cfg.lm.words, "lm.words")
    further = set(map(normalizer(cfg), listed(lines))).difference(words)
    spelled = sorted(word for word in further if set(word) <= set("".join(cfg.units.inventory)))
    log.info("lm.words: %d words of it have characters that the units lack", len(further) - len(spelled))
    return spelled


def _run(command: list, what: str) -> None:
    """Run a tool of KenLM's; raises InputError with the end of its complaint about `what` it reads."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise InputError(f"{what}: {command[0]} failed ({reason.strip()}); mend the text, or lower lm.order")
