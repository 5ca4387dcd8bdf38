"""Stage 4: the bottleneck features of every split, as an archive like that of stage 2."""

from pathlib import Path

from local.stage import stage


@stage(writes="bottleneck", reads=("pretrain", "features"))
def run(cfg, partial) -> None:
    import torch

    from lightning_modules import checkpoint
    from lightning_modules.batch import Batcher
    from lightning_modules.fit import device, place
    from local import archive

    features, final = Path(cfg.dirs.features), Path(cfg.dirs.bottleneck)
    module, _ = checkpoint.load(Path(cfg.dirs.pretrain) / "autoencoder.pt", features.name)
    module.to(device(cfg.trainer.accelerator))
    for split in sorted(path.parent.name for path in features.glob("*/feats.scp")):
        data = place(archive.read(features / split, cfg.features.cmvn), cfg.trainer.accelerator)
        batches = Batcher(data, batch_frames=round(200 / data.frame_shift), seed=0).all
        with archive.Writer(partial / split, final / split, 0) as writer, torch.inference_mode():
            speakers = dict(zip(data.ids, data.speakers, strict=True))
            for batch in batches():
                codes, lengths = module.encode(batch.features, batch.lengths)
                for key, code, length in zip(batch.ids, codes.cpu().numpy(), lengths.tolist(), strict=True):
                    writer.write(key, code[:length], speakers[key])
        archive.join(partial / split, data.frame_shift * module.stride)
