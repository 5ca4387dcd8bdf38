"""Stage 0: the corpus's audio, downloaded or synthesized; a folder of the user's own is used as it is."""

from local.config import plain
from local.corpora import CHECKS, opened
from local.stage import stage

READING = (*CHECKS, "resample", "sample_rate")  # what stage 1 makes of the audio, not what it is


def _made_from(cfg) -> dict:
    return {"corpus": {key: value for key, value in plain(cfg, "corpus").items() if key not in READING}}


# Making the corpus finds a mistyped root, beside which nothing of ours may be left.
@stage(writes="audio", extra=_made_from, check=opened, resumes=True)
def run(cfg, partial) -> None:
    opened(cfg).download(partial, cfg.machine.workers)
