"""Stage 0: the corpus's audio, downloaded or synthesized; a folder of the user's own is used as it is."""

from local.config import make, plain
from local.stage import stage


@stage(writes="audio", extra=lambda cfg: {"corpus": plain(cfg, "corpus")})
def run(cfg, partial) -> None:
    make(cfg.corpus).download(partial, cfg.machine.workers)
