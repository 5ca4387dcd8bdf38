"""Stage 6: hypotheses for dev, and for test if the decoder's settings say so.

What a decoder lets choose, dev chooses: `tuning.json` has the trials, and what choosing on test would have claimed.
"""

import json
import logging
from pathlib import Path

from local import manifest
from local.config import plain
from local.frontend import source
from local.stage import cell_name, stage
from local.text import fold

log = logging.getLogger(__name__)


@stage(writes="decode", reads=("finetune", "features", "bottleneck", "lm"))
def run(cfg, partial) -> None:
    from local.config import make

    settings = {key: value for key, value in plain(cfg, "decoder").items() if key not in ("name", "splits")}
    decoder = make(settings, units=plain(cfg, "units")["inventory"])
    heard = _log_probabilities(cfg)
    if hasattr(decoder, "tune"):
        trials = {split: decoder.tune(*_tuning_data(cfg, split, heard[split])) for split in heard if split != "dev"}
        trials["dev"] = decoder.tune(*_tuning_data(cfg, "dev", heard["dev"]))  # last, so that its choice is used
        (partial / "tuning.json").write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
        log.info("[%s] decode: dev chose %s of %d trials", cell_name(cfg), trials["dev"][0], len(trials["dev"]))
    for split, batches in heard.items():
        hypotheses = {}
        for ids, log_probabilities, lengths in batches:
            hypotheses |= zip(ids, decoder(log_probabilities, lengths), strict=True)
        (partial / split).mkdir()
        lines = "".join(f"{key} {text}".rstrip() + "\n" for key, text in sorted(hypotheses.items()))
        (partial / split / "text").write_text(lines, encoding="utf-8")


def _log_probabilities(cfg) -> dict[str, list[tuple]]:
    """What the recognizer puts out for each split: batches of ids, log-probabilities [B, T, 1 + units], lengths [B]."""
    import torch

    from lightning_modules import checkpoint
    from lightning_modules.batch import Batcher
    from lightning_modules.fit import device, place
    from local import archive

    directory, cmvn = source(cfg)
    module, _ = checkpoint.load(Path(cfg.dirs.finetune) / "recognizer.pt", Path(cfg.dirs.features).name)
    module.to(device(cfg.trainer.accelerator))
    found = {}
    for split in cfg.decoder.splits:
        data = place(archive.read(directory / split, cmvn), cfg.trainer.accelerator)
        with torch.inference_mode():
            found[split] = [
                (batch.ids, *(each.cpu() for each in module(batch.features, batch.lengths)))
                for batch in Batcher(data, batch_frames=round(200 / data.frame_shift), seed=0).all()
            ]
    return found


def _tuning_data(cfg, split: str, batches: list[tuple]) -> tuple[list, list[str]]:
    """The log-probabilities [T, 1 + units] of each utterance, and its reference."""
    texts = {u.id: u.text for u in manifest.read_archived(Path(cfg.dirs.data) / split, Path(cfg.dirs.features) / split)}
    frames = [each[:n] for _, batch, lengths in batches for each, n in zip(batch, lengths.tolist(), strict=True)]
    ids = [key for keys, *_ in batches for key in keys]
    return frames, [fold(texts[key], plain(cfg, "units")["scoring"]) for key in ids]
