"""Best path (Graves et al. 2006, section 3.2), SpeechBrain's."""

import numpy as np
from speechbrain.decoders.ctc import filter_ctc_output

from local.search import Hypothesis, Search
from local.text import decode


class Greedy(Search):
    """The most probable unit of each frame, repeats merged and blanks (index 0) removed: one hypothesis, and no other.

    Its score is the log-probability of that path alone.
    """

    slow = False

    def __init__(self, units: str | list[str]) -> None:
        self.units = units

    def search(self, frames: np.ndarray, count: int) -> list[Hypothesis]:
        """See Search."""
        labels = filter_ctc_output(frames.argmax(1).tolist(), blank_id=0)
        return [Hypothesis(float(frames.max(1).sum()), decode(labels, self.units))]
