"""Training batches of stored audio, augmented on the training device, whole batches at once.

B batch, N samples, T frames, D width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from scipy.fft import next_fast_len
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.processing.signal_processing import compute_amplitude, convolve1d, dB_to_amplitude, rescale
from torch.nn.functional import pad

from lightning_modules.batch import ROUND, Batcher, Rows, moments, padding_mask
from local import archive
from local.augmentation import ROOM, load
from local.extractors import Extractor


@dataclass(frozen=True)
class Audio:
    """The audio that an archive stores, and how it becomes normalized features."""

    directory: Path
    cmvn: str
    extractor: Extractor

    def read(self, ids: list[str], held: bool = True) -> archive.Frames:
        """The samples of utterances `ids`, `held` in memory or not."""
        return archive.read_audio(self.directory, ids, self.extractor.sample_rate, held)


class Augmentation:
    """Changes waveforms [B, N] that are zero behind `lengths` [B]; what is random comes from a generator on the CPU.

    `speeds`, of which a batch gets one (Ko et al. 2015); `noises` and `rooms`, folders of noise recordings and of
    room impulse responses or None (Ko et al. 2017); `snr`, the lowest and the highest in dB; the `share` of the
    utterances that get a noise, and of those that get a room. No waveform is to have more than `longest` samples.
    """

    def __init__(
        self,
        speeds: list[float],
        noises: str | None,
        snr: list[float],
        rooms: str | None,
        share: float,
        *,
        sample_rate: int,
        longest: int,
        device: torch.device,
    ) -> None:
        self.snr, self.share = snr, share
        self.resamplers = SpeedPerturb(sample_rate, [100 * speed for speed in speeds]).resamplers
        self.noises = self.rooms = None
        self.corrupts = bool(noises or rooms)
        if noises:
            track = torch.cat([torch.from_numpy(samples) for samples in load(noises, sample_rate)])
            self.period = len(track)  # behind which it begins again, for an excerpt that starts near its end
            self.noises = track.repeat(1 - (-longest // self.period))[: self.period + longest].to(device)
        if rooms:
            found = [torch.from_numpy(samples) for samples in load(rooms, sample_rate, ROOM)]
            direct = [int(samples.float().abs().argmax()) for samples in found]
            self.direct = max(direct)  # where the direct sound stands in each of `rooms`
            found = [pad(samples, (self.direct - start, 0)) for samples, start in zip(found, direct, strict=True)]
            self.rooms = torch.nn.utils.rnn.pad_sequence(found, batch_first=True).to(device)

    def speed(
        self, waves: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All waveforms at one speed, and their lengths; `lengths` on the CPU."""
        resample = self.resamplers[int(torch.randint(len(self.resamplers), (1,), generator=generator))]
        lengths = -(-lengths * resample.new_freq // resample.orig_freq)
        waves = resample(waves)  # at speed 1 these are the same
        return waves.mul_(padding_mask(lengths.to(waves.device), waves.shape[1])), lengths

    def corrupt(
        self, waves: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator, rows: Rows | None = None
    ) -> torch.Tensor:
        """Copies of them, a share of which is put into rooms, and a share of all gets a noise upon that.

        If they are `rows` of a batch, they get what they would get as a part of it.
        """
        waves, device = waves.clone(), waves.device
        rows = rows or Rows(0, len(waves), len(waves))
        for source, draw, change in (
            (self.rooms, self.draw_rooms, self.reverberate),
            (self.noises, self.draw_noises, self.add_noise),
        ):
            if source is None:
                continue
            chosen = (torch.rand(rows.whole, generator=generator) < self.share).nonzero()[:, 0]
            drawn = draw(len(chosen), generator)
            here = (chosen >= rows.first) & (chosen < rows.first + len(waves))
            if here.any():
                place = (chosen[here] - rows.first).to(device)
                waves[place] = change(waves[place], lengths[place], *(each[here].to(device) for each in drawn))
        return waves

    def draw_rooms(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor]:
        """Which room so many waveforms are put into."""
        return (torch.randint(len(self.rooms), (count,), generator=generator),)

    def reverberate(self, waves: torch.Tensor, lengths: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        """Each waveform in a room of its own, the direct sound in its place, at its former amplitude."""
        rooms = self.rooms[room].float() / 32767
        size = waves.shape[1] + rooms.shape[1]  # or what rings on would come in again at the beginning
        padded = pad(waves, (0, next_fast_len(size, real=True) - waves.shape[1]))
        found = convolve1d(padded[:, :, None], rooms[:, :, None], use_fft=True, rotation_index=self.direct)
        found = found[:, : waves.shape[1], 0].mul_(padding_mask(lengths, waves.shape[1]))
        return rescale(found, lengths[:, None], compute_amplitude(waves, lengths[:, None]))

    def draw_noises(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the noise of so many waveforms begins in the ring, and its level [count, 1] in dB."""
        low, high = self.snr
        start = torch.randint(self.period, (count,), generator=generator)
        return start, low + (high - low) * torch.rand(count, 1, generator=generator)

    def add_noise(
        self, waves: torch.Tensor, lengths: torch.Tensor, start: torch.Tensor, snr: torch.Tensor
    ) -> torch.Tensor:
        """Upon each waveform an excerpt of the recordings, which lie end to end in a ring."""
        noises = self.noises.unfold(0, waves.shape[1], 1)[start].float().mul_(padding_mask(lengths, waves.shape[1]))
        speech, level = (compute_amplitude(each, lengths[:, None], "rms") for each in (waves, noises))
        return noises.mul_(speech / level.clamp(min=1e-8) * dB_to_amplitude(-snr)).add_(waves)


class AudioBatcher(Batcher):
    """The same batches as its base, from `data` that holds samples: cut at frames, augmented, made into features.

    Batches without labels, those of an autoencoder, come with their clean features as the target if noise or rooms
    corrupt them. In `all`, nothing is augmented.
    """

    def __init__(
        self,
        data: archive.Frames,
        batch_frames: int,
        seed: int,
        crop: int | None,
        labels: list[list[int]] | None,
        audio: Audio,
        settings: dict,
    ) -> None:
        self.extractor, self.sizes = audio.extractor, data.lengths
        frames = replace(data, lengths=1 + data.lengths // self.extractor.hop)
        super().__init__(frames, batch_frames, seed, crop, labels)
        device, rate = data.frames.device, self.extractor.sample_rate
        longest = 1 + int(int(self.lengths.max()) * self.extractor.hop / min(settings["speeds"]))
        self.augmentation = Augmentation(**settings, sample_rate=rate, longest=longest, device=device)
        self.moments = None  # an utterance's are those of the frames that it has after augmentation
        if audio.cmvn != "utterance":
            self.moments = [each.to(device) for each in archive.moments(audio.directory, audio.cmvn, data.ids)]

    @torch.no_grad()
    def features(
        self,
        index: torch.Tensor,
        begin: torch.Tensor,
        lengths: torch.Tensor,
        generator: torch.Generator | None,
        rows: Rows,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See the base."""
        hop, device = self.extractor.hop, self.data.frames.device
        begin = begin * hop
        # As many samples as make the frames: those up to the next frame's center, or the utterance's end.
        sizes = torch.minimum(lengths * hop - 1, self.sizes[index] - begin)
        longest = int(sizes.max())
        index, begin, sizes = (each[rows.taken] for each in (index, begin, sizes))
        inside = padding_mask(sizes.to(device), longest)
        source, offsets = self.data.among(index)
        waves = source[:, 0].unfold(0, longest, 1)[(offsets + begin).to(device)].float().div_(32768).mul_(inside)
        if generator is None:
            return *self._normalized(waves, sizes, index), None
        waves, sizes = self.augmentation.speed(waves, sizes, generator)
        target = None
        if self.augmentation.corrupts:
            target = self._normalized(waves, sizes, index)[0] if self.labels is None else None
            waves = self.augmentation.corrupt(waves, sizes.to(device), generator, rows)
        return *self._normalized(waves, sizes, index), target

    def _normalized(
        self, waves: torch.Tensor, sizes: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The features [B, T, D] of waveforms [B, N] with `sizes` [B] samples, zero behind their lengths, and these."""
        hop = self.extractor.hop
        lengths = (1 + sizes // hop).to(waves.device)
        frames = -(-(1 + waves.shape[1] // hop) // ROUND) * ROUND
        features = self.extractor.frames(pad(waves, (0, frames * hop - 1 - waves.shape[1])), lengths)
        inside = padding_mask(lengths, frames)[:, :, None]
        index = index.to(waves.device)
        mean, deviation = [each[index] for each in self.moments] if self.moments else moments(features, inside)
        return features.sub_(mean).div_(deviation).mul_(inside), lengths  # in place: new memory costs more than sums
