"""From samples to frames, one class for each `features`; SpeechBrain's where it has them.

Windows are centered: frame t is around sample t * hop, with zeros beyond both ends. Each extractor takes samples [N]
and gives [1 + N // hop, width].
"""

from functools import cached_property

import numpy as np


class Extractor:
    """`win_length` and `hop_length` in milliseconds. SpeechBrain is imported late, for that takes seconds."""

    def __init__(self, sample_rate: int, win_length: int, hop_length: int) -> None:
        self.stft = {"sample_rate": sample_rate, "win_length": win_length, "hop_length": hop_length}
        self.sample_rate = sample_rate
        self.window = sample_rate * win_length // 1000
        self.hop = sample_rate * hop_length // 1000
        self.frame_shift = hop_length / 1000

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The frames of one utterance."""
        import torch

        with torch.inference_mode():
            return self.frames(torch.from_numpy(samples)[None])[0].numpy()


class Fbank(Extractor):
    """Log-mel filterbanks in dB, at most 80 dB below the utterance's highest."""

    def __init__(self, n_mels: int, **stft: int) -> None:
        super().__init__(**stft)
        self.n_mels = n_mels

    @cached_property
    def frames(self):
        """SpeechBrain's module."""
        from speechbrain.lobes.features import Fbank

        return Fbank(**self.stft, n_mels=self.n_mels)


class MFCC(Extractor):
    """Mel-frequency cepstral coefficients of such filterbanks, with first and second derivatives over 5 frames."""

    def __init__(self, n_mels: int, n_mfcc: int, **stft: int) -> None:
        super().__init__(**stft)
        self.n_mels, self.n_mfcc = n_mels, n_mfcc

    @cached_property
    def frames(self):
        """SpeechBrain's module."""
        from speechbrain.lobes.features import MFCC

        return MFCC(**self.stft, n_mels=self.n_mels, n_mfcc=self.n_mfcc, deltas=True, context=False)


class Spectrogram(Extractor):
    """Natural logarithm of the power spectrum, one band for each bin from 0 to half the sampling rate."""

    @cached_property
    def transform(self):
        """SpeechBrain's module."""
        from speechbrain.processing.features import STFT

        return STFT(**self.stft, n_fft=self.window)

    def frames(self, samples):
        """Samples [1, N] to frames [1, T, 1 + window // 2]."""
        from speechbrain.processing.features import spectral_magnitude

        return spectral_magnitude(self.transform(samples), log=True)


class Waveform(Extractor):
    """The samples themselves, `win_length` of them in a frame."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The frames of one utterance."""
        padded = np.pad(samples, (self.window // 2, self.window))
        return np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop][
            : 1 + len(samples) // self.hop
        ]
