"""Stage 1: a validated Kaldi data directory for each split, from headers and transcripts alone."""

import logging

from local import manifest
from local.config import make
from local.errors import InputError
from local.stage import stage

log = logging.getLogger(__name__)


# The root is in no name, for names agree across machines; but another root may hold other audio.
@stage(writes="data", reads=("audio",), extra=lambda cfg: {"root": cfg.corpus.root})
def run(cfg, partial) -> list[str]:
    corpus = make(cfg.corpus)
    bad, splits = [], {}
    for split in ("pretrain", "train", "dev", "test"):
        utterances = []
        for found in corpus.utterances(split):
            if isinstance(found, InputError):
                bad.append(str(found))
            else:
                utterances.append(found)
        bad += manifest.problems(utterances, cfg.corpus.min_duration, labeled=split != "pretrain")
        if not utterances and not bad:
            bad.append(f"{cfg.corpus.root}: no utterance for {split}; check corpus.splits.{split}")
        manifest.write(partial / split, utterances)
        splits[split] = utterances
        log.info(
            "%s: %d utterances, %d speakers, %.2f h, %d words", split, len(utterances),
            len({u.speaker for u in utterances}), sum(u.duration for u in utterances) / 3600,
            sum(len(u.text.split()) for u in utterances),
        )  # fmt: skip
    bad += manifest.overlaps(splits)
    if bad:
        raise InputError("\n".join(dict.fromkeys(bad)))
    return corpus.transcripts()
