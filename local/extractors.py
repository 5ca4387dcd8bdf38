"""From samples to frames, one class for each `features`; SpeechBrain's where it has them.

Windows are centered: frame t is around sample t * hop, with zeros beyond both ends. Each extractor takes samples [N]
and gives [1 + N // hop, width]; or a batch of them on any device, where padding changes no frame.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

FFT = 400  # SpeechBrain's own, which is a window of 25 ms at 16 kHz


class Extractor(ABC):
    """`win_length` and `hop_length` in milliseconds. SpeechBrain is imported late, for that takes seconds."""

    def __init__(self, sample_rate: int, win_length: int, hop_length: int) -> None:
        self.stft = {"sample_rate": sample_rate, "win_length": win_length, "hop_length": hop_length}
        self.sample_rate = sample_rate
        self.window, self.hop = (round(sample_rate / 1000 * size) for size in (win_length, hop_length))
        self.fft = self.window + self.window % 2  # or a transform gives a frame less, of some lengths
        self.frame_shift = self.hop / sample_rate

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The frames of one utterance."""
        import torch

        with torch.inference_mode():
            frames = torch.tensor([1 + len(samples) // self.hop])
            return self.frames(torch.from_numpy(samples)[None], frames)[0].numpy()

    @abstractmethod
    def frames(self, samples, lengths):
        """Samples [B, N], zero behind each utterance, to frames [B, 1 + N // hop, width].

        `lengths` [B] are the utterances' own in frames; what lies behind them is undefined.
        """


class Fbank(Extractor):
    """Log-mel filterbanks in dB, at most 80 dB below the utterance's highest."""

    def __init__(self, n_mels: int, **stft: int) -> None:
        super().__init__(**stft)
        self.n_mels = n_mels

    @cached_property
    def module(self):
        """SpeechBrain's."""
        from speechbrain.lobes.features import Fbank

        return Fbank(**self.stft, n_mels=self.n_mels, n_fft=max(self.fft, FFT))

    def frames(self, samples, lengths):
        """See the base."""
        from speechbrain.processing.features import spectral_magnitude

        power = spectral_magnitude(self.module.compute_STFT(samples))
        # A window centered behind the end may reach back into the utterance, and must not be its highest.
        return self.module.compute_fbanks(power.mul_((_steps(power) < lengths[:, None])[:, :, None]))


class MFCC(Fbank):
    """Mel-frequency cepstral coefficients of such filterbanks, with first and second derivatives over 5 frames."""

    def __init__(self, n_mels: int, n_mfcc: int, **stft: int) -> None:
        super().__init__(n_mels, **stft)
        self.n_mfcc = n_mfcc

    @cached_property
    def module(self):
        """SpeechBrain's."""
        from speechbrain.lobes.features import MFCC

        sizes = {"n_mels": self.n_mels, "n_mfcc": self.n_mfcc, "n_fft": max(self.fft, FFT)}
        return MFCC(**self.stft, **sizes, deltas=True, context=False)

    def frames(self, samples, lengths):
        """See the base; for the derivatives, an utterance's last frame goes on behind its end."""
        import torch

        found = [self.module.compute_dct(super().frames(samples, lengths))]
        last = torch.minimum(_steps(found[0]), lengths[:, None] - 1)[:, :, None].expand_as(found[0])
        for _ in range(2):
            found.append(self.module.compute_deltas(found[-1].gather(1, last)))
        return torch.cat(found, 2)


class Spectrogram(Extractor):
    """Natural logarithm of the power spectrum, one band for each bin from 0 to half the sampling rate."""

    @cached_property
    def transform(self):
        """SpeechBrain's module."""
        from speechbrain.processing.features import STFT

        return STFT(**self.stft, n_fft=self.fft)

    def frames(self, samples, lengths):
        """See the base."""
        from speechbrain.processing.features import spectral_magnitude

        return spectral_magnitude(self.transform(samples), log=True)


class Waveform(Extractor):
    """The samples themselves, `win_length` of them in a frame."""

    def frames(self, samples, lengths):
        """See the base."""
        from torch.nn.functional import pad

        windows = pad(samples, (self.window // 2, self.window)).unfold(1, self.window, self.hop)
        return windows[:, : 1 + samples.shape[1] // self.hop].contiguous()


def _steps(frames):
    """The number of each of frames [B, T, width], [1, T]."""
    import torch

    return torch.arange(frames.shape[1], device=frames.device)[None]
