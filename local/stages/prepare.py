"""Stage 1: a validated Kaldi data directory for each split, from headers and transcripts alone."""

import hashlib
import logging
from pathlib import Path

from local import audit, manifest, summary
from local.corpora import opened
from local.errors import InputError
from local.ledger import Ledger
from local.manifest import SPLITS
from local.marker import read_marker, stamp
from local.stage import stage
from local.validation import violations

log = logging.getLogger(__name__)


def _check(cfg) -> None:
    if cfg.corpus.on_error not in ("stop", "skip"):
        raise InputError(f"corpus.on_error={cfg.corpus.on_error}: expected stop or skip")
    audit.check_allowed(cfg.corpus.allow_overlap)


def _audio(cfg, data: Path) -> dict:
    """One digest over size and time of change of all audio; what stage 0 made is in stage 0's own marker."""
    if read_marker(cfg.dirs.audio):
        return {}
    found = hashlib.blake2b(digest_size=16)
    for split in SPLITS:
        with open(data / split / "wav.scp", encoding="utf-8") as lines:
            for line in lines:
                path = line.rstrip("\n").partition(" ")[2]
                found.update(f"{path} {stamp(path)}\n".encode())
    return {"audio": found.hexdigest()}


# The root is in no name, for names agree across machines; but another root may hold other audio.
@stage(writes="data", reads=("audio",), extra=lambda cfg: {"root": cfg.corpus.root}, check=_check, watched=_audio)
def run(cfg, partial) -> list[str]:
    corpus = opened(cfg)
    skip, allowed = cfg.corpus.on_error == "skip", cfg.corpus.allow_overlap
    errors, left_out = [], {}
    with Ledger(partial / "ledger.sqlite") as ledger:
        for split in SPLITS:
            bad, fatal = _fill(ledger, split, corpus, cfg.corpus.min_duration)
            left_out[split] = bad
            if next(ledger.rows(split), None) is None and not fatal:
                found = f"none of its {len(bad)} utterances can be used" if bad else "no utterance"
                fatal = [*bad, f"{cfg.corpus.root}: {split}: {found}; check corpus.splits.{split}"]
            errors += fatal if skip else [*bad, *fatal]
        overlaps = audit.shared(ledger)
        errors += audit.leaks(overlaps, allowed)
        if errors:
            raise InputError("\n".join(dict.fromkeys(errors)))
        for split, bad in left_out.items():
            _write(partial / split, ledger, split, bad)
            errors += violations(partial / split)
        if errors:
            raise InputError("\n".join(errors))
        rows = summary.corpus_rows(ledger, {split: len(bad) for split, bad in left_out.items()})
    text = summary.render(rows, summary.overlap_rows(overlaps, allowed))
    (partial / "summary.txt").write_text(text, encoding="utf-8")
    log.info("[%s] prepare: what there is\n\n%s", cfg.corpus.name, text)
    for split, bad in left_out.items():
        if bad:
            log.log(
                logging.WARNING if split in audit.HELD_OUT else logging.INFO,
                "%s: %d utterances are left out, for corpus.on_error=skip: %s/%s/left_out says which and why",
                split, len(bad), cfg.dirs.data, split,
            )  # fmt: skip
    return corpus.transcripts()


def _fill(ledger: Ledger, split: str, corpus, min_duration: float) -> tuple[list[str], list[str]]:
    """Add a split's good utterances to the ledger; what is wrong with each of the others, and with the split."""
    bad = []
    try:
        for found in corpus.utterances(split):
            try:
                if isinstance(found, InputError):
                    raise found
                if lines := list(manifest.problems(found, min_duration, labeled=split != "pretrain")):
                    raise InputError("\n".join(lines))
                if not ledger.add(split, found, *audit.header(found.audio)):
                    raise InputError(f"{found.id}: duplicate utterance id ({found.audio}); ids must be unique")
            except InputError as error:
                bad.append("\n".join(map(manifest.printable, str(error).splitlines())))
    except InputError as error:
        return bad, [str(error)]
    return bad, []


def _write(directory: Path, ledger: Ledger, split: str, bad: list[str]) -> None:
    manifest.write(directory, ledger.rows(split))
    lines = {"audio_digest": (f"{key} {digest}" for key, digest in ledger.digests(split)), "left_out": bad}
    for name, found in lines.items():
        with open(directory / name, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in found)
        if not (directory / name).stat().st_size:
            (directory / name).unlink()
