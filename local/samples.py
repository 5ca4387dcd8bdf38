"""What is wrong with samples."""

import numpy as np

from local.errors import InputError
from local.manifest import Utterance

FULL_SCALE = 32767 / 32768
CLIPPED = 0.001  # share of samples at full scale above which an utterance is called clipped


def check(utterance: Utterance, samples: np.ndarray, sample_rate: int, tolerance: float) -> int:
    """How many of the samples [N] are at full scale.

    Raises InputError if they last `tolerance` seconds more or less than expected, or hold no speech.
    """
    where = utterance.audio
    seconds, size = len(samples) / sample_rate, len(samples)
    if abs(seconds - utterance.duration) > tolerance:
        raise InputError(
            f"{where}: {seconds:.3f} s of audio, but {utterance.duration:.3f} s by its header or segment; "
            "restore it, or run stage 1 (prepare) again"
        )
    peak = max(samples.max(initial=0), -samples.min(initial=0))
    if not np.isfinite(peak):
        count = size - np.count_nonzero(np.isfinite(samples))
        raise InputError(f"{where}: {count} of {size} samples are no number, expected -1 to 1; restore or remove it")
    if peak == 0:
        raise InputError(f"{where}: all {size} samples are zero, expected speech; restore or remove it")
    clipped = 0 if peak < FULL_SCALE else int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))
    if clipped == size:
        raise InputError(f"{where}: all {size} samples are at full scale, expected speech; restore or remove it")
    return clipped
