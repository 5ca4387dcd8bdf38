"""Best path (Graves et al. 2006, section 3.2), SpeechBrain's."""

import torch
from speechbrain.decoders.ctc import ctc_greedy_decode

from local.text import decode


class Greedy:
    """The most probable unit of each frame, repeats merged and blanks (index 0) removed."""

    def __init__(self, units: str | list[str]) -> None:
        self.units = units

    def __call__(self, log_probabilities: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """[B, T, 1 + units] log-probabilities with lengths [B] to B texts."""
        relative = lengths.cpu() / log_probabilities.shape[1]
        best = ctc_greedy_decode(log_probabilities.float().cpu(), relative, blank_id=0)
        return [decode(labels, self.units) for labels in best]
