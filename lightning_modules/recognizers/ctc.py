"""A connectionist temporal classification recognizer (Graves et al. 2006)."""

import torch
from torch import nn

from lightning_modules import masking
from lightning_modules.batch import Batch, padding_mask, seed_of
from lightning_modules.checkpoint import build
from lightning_modules.subsampling import Subsampling
from lightning_modules.training import Training
from local.decoders.greedy import Greedy
from local.edits import Counts, count_characters, count_words
from local.errors import InputError
from local.text import decode, fold


class CTC(Training):
    """Input layer, encoder and a linear layer over blank (index 0) and `units`; errors are counted after `scoring`.

    `autoencoder`, if given, holds the settings of one that is carried along and trained too; its output is
    standardized with `mean` and `deviation` over the unlabeled audio. `input_stride` is the stride of what is read
    from disk. The input layer strides by what is left of `stride`, so every arm sees the same frame rate.
    """

    group = "recognizer"

    def __init__(
        self,
        *,
        input_dim: int,
        input_stride: int,
        autoencoder: dict | None,
        encoder: dict,
        width: int,
        stride: int,
        units: str | list[str],
        scoring: dict[str, str],
        frontend: str,
        frontend_rate: float,
        thaw: float,
        time_mask: float,
        span: int,
        band: float,
        layer_decay: float = 1.0,
        as_pretrained: bool = False,
        best: str = "wer",
        **training,
    ) -> None:
        super().__init__(**training)
        if best not in ("wer", "cer"):
            raise InputError(f"recognizer.best={best}: expected wer or cer, the rate by which dev chooses a checkpoint")
        self.monitor = f"val_{best}"
        self.units, self.scoring = units, scoring
        self.stride, self.input_stride = stride, input_stride
        self.frontend_rate, self.layer_decay = frontend_rate, layer_decay
        self.thaw = thaw if autoencoder and autoencoder["trained"] else 0.0  # random weights are not worth keeping
        self.time_mask, self.span, self.band = time_mask, max(1, span // input_stride), round(band * input_dim)
        self.autoencoder = build(autoencoder) if autoencoder else None
        self.as_pretrained = as_pretrained and hasattr(self.autoencoder, "token")
        if autoencoder:
            del self.autoencoder.decoder  # neither trained nor counted here
        dim = self.autoencoder.dim if autoencoder else input_dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        done = input_stride * (self.autoencoder.stride if autoencoder else 1)
        if stride % done:
            raise InputError(f"recognizer.stride={stride}, but the front end strides by {done}; make it a multiple")
        torch.manual_seed(seed_of(self.seed, "recognizer"))  # it begins alike, whatever was made before it
        self.input = Subsampling(dim, width, stride // done)
        self.encoder = build(encoder, input_dim=width)
        self.output = nn.Linear(self.encoder.dim, 1 + len(units))
        self.greedy = Greedy(units)
        self.counts: list = []

    def carry(self, pretrained: nn.Module, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Begin with a pretrained encoder, its output standardized by `mean` and `deviation` [dim]."""
        state = {key: value for key, value in pretrained.state_dict().items() if not key.startswith("decoder.")}
        self.autoencoder.load_state_dict(state)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, T, D] features to log-probabilities [B, ceil(T / stride), 1 + units] and their lengths [B]."""
        if self.autoencoder is not None:
            features, lengths = self.autoencoder.encode(features, lengths)
            features = (features - self.mean) / self.deviation
        hidden, lengths = self.input(features, lengths)
        return self.output(self.encoder(hidden, lengths)).log_softmax(2, torch.float32), lengths

    def ctc(self, log_probabilities: torch.Tensor, lengths: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The CTC loss of a batch, by label, without utterances that cannot be aligned: training has none of them."""
        losses = nn.functional.ctc_loss(
            log_probabilities.float().transpose(0, 1), batch.labels, lengths, batch.label_lengths, reduction="none"
        )
        counted = ~losses.isinf() | self.training  # there it is an error
        loss, labels = torch.where(counted, losses, 0).sum(), (batch.label_lengths * counted).sum()
        return self.total(loss) / self.total(labels).clamp(min=1)

    def augment(self, features: torch.Tensor) -> torch.Tensor:
        """SpecAugment (Park et al. 2019): spans and a band of each utterance set to the mean, which is zero.

        With `as_pretrained` they are hidden as the front end had them hidden in pretraining.
        """
        batch, frames, width = features.shape
        mean = features.new_zeros(())
        fill = self.autoencoder.token.to(features.dtype) if self.as_pretrained else mean
        time = masking.spans(self.draw, batch, frames, self.span, self.time_mask, features.device)
        frequency = masking.band(self.draw, batch, width, self.band, features.device)
        return torch.where(time[:, :, None] | frequency[:, None, :], fill, features)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """One update's loss."""
        if self.autoencoder is not None:
            self.autoencoder.requires_grad_(self.global_step >= self.thaw * self.updates)
        return self.finite(self.ctc(*self(self.augment(batch.features), batch.lengths), batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss, and the errors of greedy hypotheses."""
        log_probabilities, lengths = self(batch.features, batch.lengths)
        loss = self.ctc(log_probabilities, lengths, batch)
        hypotheses = self.greedy(log_probabilities, lengths)
        blanks = (log_probabilities.argmax(2) == 0)[padding_mask(lengths, log_probabilities.shape[1])]
        spoken = [int(blanks.sum()), len(blanks), sum(not each for each in hypotheses), len(hypotheses)]
        rows = zip(batch.labels.tolist(), batch.label_lengths.tolist(), strict=True)
        references = [fold(decode(row[:size], self.units), self.scoring) for row, size in rows]
        hypotheses = [fold(text, self.scoring) for text in hypotheses]
        words = count_words(references, hypotheses)
        characters = sum(map(count_characters, references, hypotheses), Counts())
        counts = [*spoken, words.errors, words.length, characters.errors, characters.length]
        counts = [*counts, int(batch.label_lengths.sum())]
        blank, frames, empty, said, *counts, labels = self.total(torch.tensor(counts, device=loss.device)).tolist()
        self.counts.append(counts)
        for name, value, weight in (
            ("val_loss", loss, labels),
            ("health/blank_rate", blank / frames, frames),
            ("health/empty_rate", empty / said, said),
        ):
            self.log(name, value, on_step=False, on_epoch=True, logger=False, batch_size=weight)

    def on_validation_epoch_end(self) -> None:
        """Word and character error rates, in percent."""
        word_errors, words, character_errors, characters = (sum(column) for column in zip(*self.counts, strict=True))
        self.counts.clear()
        self.log("val_wer", 100 * word_errors / max(1, words), logger=False)
        self.log("val_cer", 100 * character_errors / max(1, characters), logger=False)

    def parameter_groups(self) -> list[dict]:
        """The front end learns at `frontend_rate` times the recognizer's rate, a layer at `layer_decay` of the next."""
        if self.autoencoder is None:
            return super().parameter_groups()
        carried = {id(p) for p in self.autoencoder.parameters()}
        groups = [{"params": [p for p in self.parameters() if id(p) not in carried]}]
        rate = self.frontend_rate * self.learning_rate
        for layer in reversed(self.autoencoder.parameter_layers()):
            groups.append({"params": layer, "lr": rate})
            rate *= self.layer_decay
        return groups
