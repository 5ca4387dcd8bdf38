"""Stage 7: errors of the hypotheses by word and character, or by phone, by sclite's alignment."""

import logging
from pathlib import Path

from local import hypotheses, manifest
from local.config import plain
from local.corpora import normalizer
from local.scoring import FILES, groups, write_scores
from local.stage import cell_name, stage
from local.text import fold

log = logging.getLogger(__name__)
SAID = {
    "missing": "hypotheses are missing, all of whose words count as deleted",
    "empty": "references are empty, where all that is heard counts as inserted",
}


@stage(writes="score", reads=("decode", "data", "features"), extra=lambda cfg: {"files": FILES})
def run(cfg, partial) -> None:
    scoring, normalize = plain(cfg, "units")["scoring"], normalizer(cfg)

    def plainly(text: str) -> str:
        return fold(normalize(text), scoring)

    for split in cfg.decoder.splits:
        utterances = manifest.used(cfg, split)
        references = {u.id: plainly(u.text) for u in utterances}
        heard = hypotheses.read(Path(cfg.dirs.decode) / split / "text")
        heard = {key: plainly(text) for key, text in heard.items()}
        out = partial / split
        speakers, grouped = {u.id: u.speaker for u in utterances}, {u.id: groups(u) for u in utterances}
        found = write_scores(out, references, heard, speakers, cfg.units.rate, grouped)
        lines = [(out / "wer").read_text(encoding="utf-8").splitlines()[0]]
        lines += [f"{found[key]} {what}" for key, what in SAID.items() if found[key]]
        level = logging.WARNING if len(lines) > 1 else logging.INFO
        log.log(level, "[%s] %s %s", cell_name(cfg), split, "; ".join(lines))
