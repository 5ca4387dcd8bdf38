"""Stage 7: word and character errors of the hypotheses, by sclite's alignment."""

import logging
from pathlib import Path

from local import manifest
from local.scoring import write_scores
from local.stage import cell_name, stage

log = logging.getLogger(__name__)


@stage(writes="score", reads=("decode", "data"))
def run(cfg, partial) -> None:
    for split in cfg.decoder.splits:
        utterances = manifest.read(Path(cfg.dirs.data) / split)
        lines = (Path(cfg.dirs.decode) / split / "text").read_text(encoding="utf-8").splitlines()
        hypotheses = {key: text for key, _, text in (line.partition(" ") for line in lines)}
        out = partial / split
        write_scores(out, {u.id: u.text for u in utterances}, hypotheses, {u.id: u.speaker for u in utterances})
        log.info("[%s] %s %s", cell_name(cfg), split, (out / "wer").read_text(encoding="utf-8").splitlines()[0])
