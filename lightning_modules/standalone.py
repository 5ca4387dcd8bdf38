"""A recognizer by itself: from the samples of a file to log-probabilities, as stages 2, 4 and 6 compute them.

N samples, T frames, D width.
"""

import logging
from pathlib import Path

import torch
from torch import nn

from lightning_modules import checkpoint
from lightning_modules.batch import moments
from local.config import make_of
from local.errors import InputError

log = logging.getLogger(__name__)


class Standalone(nn.Module):
    """A recognizer and all that comes before it, from the `input` that stage 5 saved beside it.

    That is the feature extractor's settings, the kind of CMVN and for `global` its mean and deviation [D], and for an
    arm that reads a frozen bottleneck its autoencoder and what standardizes that. With CMVN over speakers each file is
    taken for a speaker.
    """

    def __init__(
        self, recognizer: nn.Module, extractor: dict, cmvn: str, statistics: list | None, frontend: dict | None
    ):
        super().__init__()
        self.recognizer, self.cmvn, self.statistics = recognizer, cmvn, statistics
        self.extractor = make_of("local.extractors", extractor)
        self.frontend = checkpoint.restored(frontend["settings"], frontend["state"]) if frontend else None
        self.standard = frontend["statistics"] if frontend else None
        self.frame_shift = recognizer.stride * self.extractor.frame_shift  # seconds, of the log-probabilities

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N] in [-1, 1], at the extractor's rate, to log-probabilities [T, 1 + units]."""
        lengths = torch.full((1,), 1 + samples.shape[0] // self.extractor.hop)
        features = self.extractor.frames(samples[None], lengths)
        if self.cmvn != "none":
            mean, deviation = self.statistics or moments(features, torch.ones_like(features[:, :, :1]))
            features = (features - mean) / deviation
        if self.frontend is not None:
            features, lengths = self.frontend.encode(features, lengths)
            mean, deviation = self.standard
            features = (features - mean) / deviation
        return self.recognizer(features, lengths)[0][0]


def load(path: Path) -> Standalone:
    """The recognizer of a checkpoint, or of the `recognizer.pt` in a directory, in evaluation mode on the CPU.

    Raises InputError for one that cannot be used by itself.
    """
    path = path / "recognizer.pt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: not there, expected recognizer.pt of stage 5; name exp/<corpus>/<labels>/<arm>-...")
    content = checkpoint.read(path)
    if not isinstance(content, dict) or "input" not in content:
        raise InputError(
            f"{path}: holds no recognizer that says how audio becomes its input, expected recognizer.pt of stage 5; if "
            "a former version wrote it, move its folder away and run stage 5 (finetune) again"
        )
    if content["input"] is None:
        raise InputError(
            f"{path}: reads features of another toolkit (arm=external), which are not made here; use another arm's"
        )
    if content["input"]["cmvn"] == "speaker":
        log.warning("%s: trained with features.cmvn=speaker; each file is taken for a speaker of its own", path)
    return Standalone(checkpoint.restored(content["settings"], content["state"]), **content["input"]).eval()
