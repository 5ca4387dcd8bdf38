"""Training and validation batches as Lightning wants them, made without a copy or a worker process."""

from collections.abc import Iterator

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from lightning_modules.batch import Batch, Batcher


class _Steps(IterableDataset):
    def __init__(self, batcher: Batcher, first: int, count: int, parts: int, place: tuple[int, int]) -> None:
        self.batcher, self.first, self.count, self.parts, self.place = batcher, first, count, parts, place

    def __len__(self) -> int:
        return self.count * self.parts

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.first, self.first + self.count):
            batch = self.batcher.at(step, *self.place)
            yield from batch.split(self.parts) if self.parts > 1 else [batch]


class _All(IterableDataset):
    def __init__(self, batcher: Batcher, place: tuple[int, int]) -> None:
        self.batcher, self.place = batcher, place

    def __iter__(self) -> Iterator[Batch]:
        return self.batcher.all(*self.place)


class DataModule(pl.LightningDataModule):
    """What Lightning calls an epoch is here the stretch between two validations: at most `check_every` updates.

    A resumed training begins with what is left of one, for batches follow from the step alone. The batch of an update
    comes in so many `parts`. Of several processes each gets rows of every batch, so that these are the same however
    many there are.
    """

    def __init__(self, train: Batcher, dev: Batcher, updates: int, check_every: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.train, self.dev, self.updates, self.check_every = train, dev, updates, check_every

    def train_dataloader(self) -> DataLoader:
        """The updates up to the next validation; Lightning asks again after each."""
        first = self.trainer.global_step
        count = min(self.check_every - first % self.check_every, self.updates - first)
        return DataLoader(_Steps(self.train, first, count, self.parts, self._place()), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The whole of dev."""
        return DataLoader(_All(self.dev, self._place()), batch_size=None)

    def _place(self) -> tuple[int, int]:
        """Which process this is, and how many there are."""
        return self.trainer.global_rank, self.trainer.world_size
