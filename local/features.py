"""From audio to frames, in shards that do not depend on the number of workers.

A shard is written in full or not at all, and a killed run's whole shards stay. What is in memory are a few shards.
"""

import logging
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from rich.progress import track

from local import audio, manifest
from local.archive import Writer, join, joined
from local.audit import audio_leaks, digest, tell_left_out
from local.config import make
from local.errors import InputError
from local.samples import CLIPPED, check
from local.workers import end_with_parent

log = logging.getLogger(__name__)

SHARD = 200  # utterances


def extract_shard(
    extractor: dict, resample: bool, skip: bool, store: str, utterances: list[manifest.Utterance], writer: Writer
) -> None:
    """Write one shard. What holds no speech gets a line, in its table `left_out` if that is to `skip`.

    Raises InputError with these lines if it is not, and writes nothing then.
    """
    extract, errors = make(extractor), []
    with writer:
        for utterance in utterances:
            part = (utterance.start, utterance.duration) if utterance.recording else ()
            try:
                samples = audio.read(utterance.audio, extract.sample_rate, *part, resample=resample)
                clipped = check(utterance, samples, extract.sample_rate, extract.frame_shift)
                told = not utterance.recording and audio.header(utterance.audio).digest  # in stage 1's audio_digest
            except InputError as error:
                errors.append(f"{utterance.id} in {error}" if utterance.recording else str(error))
                continue
            more = {}
            if not told:
                more["audio_digest"] = digest(samples)
            if clipped > CLIPPED * len(samples):
                more["clipped"] = f"{clipped / len(samples):.4f} {utterance.audio}"
            stored = (extract.sample_rate, audio.sixteen_bit(samples)) if store == "audio" else None
            writer.write(utterance.id, extract(samples), utterance.speaker, stored, **more)
        if errors and not skip:
            raise InputError("\n".join(errors))
        writer.leave_out(errors)


def extract(
    data: Path, splits: list[str], extractor: dict, partial: Path, final: Path, workers: int,
    resample: bool = False, allow_overlap: tuple[str, ...] = (), skip: bool = False, store: str = "frames",
    share: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Compute the archives of `splits` into `partial`, with `final` in their scp files, where they are not yet.

    With a `share` (k, n) only the k-th of each n shards, k from 1; they are not joined, and not audited.

    What they `store` are frames, or audio too, in 16 bits, for training that augments it. Raises InputError with a line
    for each bad file, or for each pair of splits that share audio and should not. With `skip` bad files are left out,
    and an error only where nothing is left of a split.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["speechbrain.lobes.features", "local.features"])
    errors, shared = [], share or (1, 1)
    for aside in partial.rglob("*.tmp"):
        aside.unlink()
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        for split in splits:
            out, failed = partial / split, len(errors)
            left = _left(data / split, out, final / split, shared)
            jobs = (pool.submit(extract_shard, extractor, resample, skip, store, *todo) for todo in left)
            for job in track(_ahead(jobs, 2 * workers), f"features of {split}", _count(data / split, out, shared)):
                try:
                    job.result()
                except InputError as error:
                    errors.append(str(error))
            if len(errors) == failed and not share:
                join(out, make(extractor).frame_shift)
                errors += _shown(out, final / split)
    if not (errors or share):
        places = {split: [data / split, partial / split] for split in splits}
        errors = audio_leaks(places, allow_overlap, partial / "ledger.tmp")
    if errors:
        raise InputError("\n".join(errors))


def take_over(shares: Iterable[Path], final: Path, partial: Path) -> None:
    """Make the shards of `shares`, complete directories beside `final`, those of `partial`."""
    for share in shares:
        share.rename(partial / share.name)  # as a whole, or a kill would leave one with a part of its files
    for share in partial.glob(f"{final.name}.*"):
        for split in filter(Path.is_dir, share.iterdir()):
            (partial / split.name).mkdir(exist_ok=True)
            for file in sorted(split.iterdir(), key=lambda file: file.stem == "utt2num_frames"):  # which says: whole
                file.rename(partial / split.name / file.name)
        shutil.rmtree(share)


def _begin() -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(1)  # there are processes enough


def _left(
    data: Path, partial: Path, final: Path, share: tuple[int, int]
) -> Iterator[tuple[list[manifest.Utterance], Writer]]:
    """The shards of a split's share that no former run completed, each with its writer."""
    utterances = _utterances(data)
    for number, shard in enumerate(iter(lambda: list(islice(utterances, SHARD)), [])):
        writer = Writer(partial, final, number)
        if number % share[1] == share[0] - 1 and not joined(partial) and not writer.done:
            yield shard, writer


def _count(data: Path, partial: Path, share: tuple[int, int]) -> int:
    """How many these are."""
    own = range(share[0] - 1, -(-_lines(data / "utt2spk") // SHARD), share[1])
    return 0 if joined(partial) else len(own) - len([*partial.glob("utt2num_frames.*")])


def _ahead(jobs: Iterator[Future], count: int) -> Iterator[Future]:
    """The jobs in their order, of which `count` have begun or wait."""
    begun: deque[Future] = deque()
    for job in jobs:
        begun.append(job)
        if len(begun) == count:
            yield begun.popleft()
    yield from begun


def _utterances(directory: Path) -> Iterator[manifest.Utterance]:
    """The utterances of a data directory without their texts, one at a time."""
    segments = (directory / "segments").exists()
    recordings = manifest.read_table(directory / "wav.scp") if segments else {}
    names = ("utt2spk", "utt2dur", "segments" if segments else "wav.scp")
    for rows in zip(*(manifest.rows(directory / name) for name in names), strict=True):
        (_, key, speaker), (_, _, seconds), (_, _, place) = rows
        found = manifest.Utterance(key, speaker, place, float(seconds))
        if segments:
            recording, start, _ = place.split()
            found = replace(found, audio=recordings[recording], recording=recording, start=float(start))
        yield found


def _lines(path: Path) -> int:
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)


def _shown(out: Path, final: Path) -> list[str]:
    """Log what is left out of an archive and what is clipped; if nothing is left, the errors to report."""
    if not (out / "utt2num_frames").stat().st_size:
        bad = (out / "left_out").read_text(encoding="utf-8").splitlines()
        return [*bad, f"{out.name}: none of its {len(bad)} utterances can be used; mend them, or choose other audio"]
    if (out / "left_out").exists():
        tell_left_out(out.name, _lines(out / "left_out"), final / "left_out")
    if (out / "clipped").exists():
        log.warning(
            "%s: %d of %d utterances have more than %g %% of their samples at full scale, see %s/clipped",
            out.name, _lines(out / "clipped"), _lines(out / "utt2spk"), 100 * CLIPPED, final,
        )  # fmt: skip
    return []
