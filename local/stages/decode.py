"""Stage 6: hypotheses for dev, and for test if the decoder's settings say so."""

from pathlib import Path

from local.frontend import source
from local.stage import stage


@stage(writes="decode", reads=("finetune", "features", "bottleneck"))
def run(cfg, partial) -> None:
    import torch

    from lightning_modules import checkpoint
    from lightning_modules.batch import Batcher
    from lightning_modules.fit import device, place
    from local import archive
    from local.config import make, plain

    directory, cmvn = source(cfg)
    module, _ = checkpoint.load(Path(cfg.dirs.finetune) / "recognizer.pt", Path(cfg.dirs.features).name)
    module.to(device(cfg.trainer.accelerator))
    settings = {key: value for key, value in plain(cfg, "decoder").items() if key not in ("name", "splits")}
    decoder = make(settings, units=plain(cfg, "units")["inventory"])
    for split in cfg.decoder.splits:
        data = place(archive.read(directory / split, cmvn), cfg.trainer.accelerator)
        hypotheses = {}
        with torch.inference_mode():
            for batch in Batcher(data, batch_frames=round(200 / data.frame_shift), seed=0).all():
                hypotheses |= zip(batch.ids, decoder(*module(batch.features, batch.lengths)), strict=True)
        (partial / split).mkdir()
        lines = "".join(f"{key} {text}".rstrip() + "\n" for key, text in sorted(hypotheses.items()))
        (partial / split / "text").write_text(lines, encoding="utf-8")
