"""The language model that stage 6 makes before it decodes with one: KenLM's n-grams, and their perplexity."""

import json
import logging
import shutil
import subprocess
from pathlib import Path

from local import audit, manifest
from local.corpora import normalizer
from local.errors import InputError
from local.labels import subset
from local.stage import stage

log = logging.getLogger(__name__)
TOOLS = ("lmplz", "build_binary")


def _tools(cfg) -> None:
    for tool in TOOLS:
        if not shutil.which(tool):
            raise InputError(
                f"{tool}: not on the PATH, and decoder={cfg.decoder.name} needs it; local/install_kenlm.sh"
            )


@stage(writes="lm", reads=("data", "features"), check=_tools)
def run(cfg, partial) -> list[str]:
    from local.ngram import Model, vocabulary

    lm = cfg.lm
    if lm.text is None:
        train = manifest.read_archived(Path(cfg.dirs.data) / "train", Path(cfg.dirs.features) / "train")
        sentences = [u.text for u in subset(train, cfg.labels.hours, cfg.labels.seed)]
    else:
        sentences = map(normalizer(cfg), audit.sentences_of(Path(lm.text)))
    prune = map(str, [*lm.prune, *lm.prune[-1:] * lm.order][: lm.order])
    estimate = ["lmplz", "--order", str(lm.order), "--prune", *prune, "--discount_fallback", "-S", "20%", "-T", partial]
    arpa = _piped(estimate, "".join(f"{sentence}\n" for sentence in sentences if sentence), "lm.text")
    (partial / "lm.arpa").write_text(arpa, encoding="utf-8")
    _piped(["build_binary", "trie", partial / "lm.arpa", partial / "lm.bin"], "", "its ARPA file")
    words = vocabulary(partial / "lm.arpa")
    (partial / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (partial / "lm.arpa").unlink()  # the binary file holds all of it
    dev = manifest.read_archived(Path(cfg.dirs.data) / "dev", Path(cfg.dirs.features) / "dev")
    held = Model(partial).measures([u.text.split() for u in dev])
    (partial / "summary.json").write_text(json.dumps({"words": len(words)} | held, indent=1) + "\n")
    log.info(
        "lm: %s: %d words; on dev perplexity %.0f, and %.1f %% of words are unknown",
        cfg.dirs.lm, len(words), held["perplexity"], 100 * held["unknown"],
    )  # fmt: skip
    return [lm.text] if lm.text else []


def _piped(command: list, text: str, what: str) -> str:
    """What a tool of KenLM's makes of a text; raises InputError with the end of its complaint."""
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise InputError(f"{what}: {command[0]} failed ({reason.strip()}); mend the text, or lower lm.order")
    return done.stdout
