"""Stage 7: errors of the hypotheses by word and character, or by phone, by sclite's alignment."""

import logging
from pathlib import Path

from local import hypotheses, manifest
from local.config import plain
from local.scoring import write_scores
from local.stage import cell_name, stage
from local.text import fold

log = logging.getLogger(__name__)


@stage(writes="score", reads=("decode", "data", "features"))
def run(cfg, partial) -> None:
    scoring = plain(cfg, "units")["scoring"]
    for split in cfg.decoder.splits:
        utterances = manifest.read_archived(Path(cfg.dirs.data) / split, Path(cfg.dirs.features) / split)
        references = {u.id: fold(u.text, scoring) for u in utterances}
        heard = hypotheses.read(Path(cfg.dirs.decode) / split / "text")
        folded = {key: fold(text, scoring) for key, text in heard.items()}
        out = partial / split
        write_scores(out, references, folded, {u.id: u.speaker for u in utterances}, cfg.units.rate)
        log.info("[%s] %s %s", cell_name(cfg), split, (out / "wer").read_text(encoding="utf-8").splitlines()[0])
