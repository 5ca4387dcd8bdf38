"""Stage 1: a validated Kaldi data directory for each split, from headers and transcripts alone."""

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from local import audio, audit, manifest, summary
from local.corpora import check_splits, normalizer, opened, splits
from local.errors import InputError
from local.ledger import Ledger
from local.marker import read_marker, stamp
from local.stage import stage
from local.validation import violations

log = logging.getLogger(__name__)


def _check(cfg) -> None:
    if not manifest.SAFE_ID.fullmatch(str(cfg.corpus.name)) or not str(cfg.corpus.name).strip("."):
        raise InputError(f"corpus.name={cfg.corpus.name}: expected a name for folders, of letters, digits, -, _ and .")
    if cfg.corpus.on_error not in ("stop", "skip"):
        raise InputError(f"corpus.on_error={cfg.corpus.on_error}: expected stop or skip")
    for name in ("min_duration", "max_duration"):
        if not isinstance(cfg.corpus[name], int | float):
            raise InputError(f"corpus.{name}={cfg.corpus[name]}: expected a number of seconds")
    for split in splits(cfg):
        if split not in manifest.SPLITS and not manifest.FURTHER.fullmatch(split):
            raise InputError(
                f"corpus.splits.{split}: no split is called so; expected {', '.join(manifest.SPLITS)} "
                "or a further test set, whose name begins with test, as test_other"
            )
    audit.check_allowed(cfg.corpus.allow_overlap, splits(cfg))


def _audio(cfg, data: Path) -> dict:
    """Digests over size and time of change of all audio, and over which transcripts there are.

    What stage 0 made is in stage 0's own marker.
    """
    if read_marker(cfg.dirs.audio):
        return {}
    found, names = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    with suppress(InputError):  # a corpus that has gone is not needed any more
        names.update("\n".join(opened(cfg).transcripts()).encode())
    for split in manifest.splits(data):
        for _, _, path in manifest.rows(data / split / "wav.scp"):
            found.update(f"{path} {stamp(path)}\n".encode())
    return {"audio": found.hexdigest(), "transcripts": names.hexdigest()}


def _beside(cfg) -> None:
    """What no data depends on, so that it is no part of what is done: which splits are decoded, and the audit of what
    language models read.
    """
    check_splits(cfg)
    if cfg.lm.text is None:
        return
    allowed = cfg.corpus.allow_overlap
    found = audit.shared_with_text(cfg.lm.text, Path(cfg.dirs.data), normalizer(cfg), allowed)
    table = summary.render(summary.overlaps(found, audit.lm_pairs(splits(cfg)), allowed))
    log.info("[%s] prepare: %s\n\n%s", cfg.corpus.name, cfg.lm.text, table)


# The root is in no name, for names agree across machines; but another root may hold other audio.
@stage(
    writes="data", reads=("audio",), extra=lambda cfg: {"root": cfg.corpus.root},
    check=_check, after=_beside, watched=_audio,
)  # fmt: skip
def run(cfg, partial) -> list[str]:
    corpus = opened(cfg)
    skip, allowed = cfg.corpus.on_error == "skip", cfg.corpus.allow_overlap
    errors, left_out = [], {}
    with Ledger(partial / "ledger.sqlite", splits(cfg)) as ledger:
        for split in splits(cfg):
            bad, fatal = _fill(ledger, split, corpus, cfg.corpus.min_duration, cfg.corpus.max_duration)
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
    text = summary.render(rows, summary.overlaps(overlaps, audit.pairs(splits(cfg)), allowed))
    (partial / "summary.txt").write_text(text, encoding="utf-8")
    log.info("[%s] prepare: what there is\n\n%s", cfg.corpus.name, text)
    for split, bad in left_out.items():
        if bad:
            audit.tell_left_out(split, len(bad), Path(cfg.dirs.data, split, "left_out"))
    return corpus.transcripts()


def _fill(ledger: Ledger, split: str, corpus, *durations: float) -> tuple[list[str], list[str]]:
    """Add a split's good utterances, of least and greatest duration `durations`, to the ledger.

    Returns what is wrong with each of the others, and with the split.
    """
    bad = []
    try:
        for found in corpus.utterances(split):
            try:
                if isinstance(found, InputError):
                    raise found
                if lines := list(manifest.problems(found, *durations, labeled=split != "pretrain")):
                    raise InputError("\n".join(lines))
                header = audio.header(found.audio)
                if not ledger.add(split, found, header.rate, header.digest):
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
