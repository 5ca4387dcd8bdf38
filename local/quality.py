"""What vectors hold, whatever made them: how many dimensions they fill, and how well speakers and phones are told
apart by them.

T vectors of an utterance, D dimensions, U utterances, N examples of C classes.
"""

from collections import Counter

import numpy as np
import torch

MEASURED = 200  # utterances of dev, at most
PROBED = 400  # of train, where speakers have several
FRAMES = 20_000  # of their vectors, of each split, at most, where phones are told apart
FEWEST = 4  # of a speaker who has them, where not all are taken
DEAD = 1e-3  # of the largest standard deviation, up to which a dimension says nothing
STEPS = 100  # of L-BFGS; some 20 reach the optimum

Span = tuple[float, float, str]  # begin and duration in seconds, and the phone that was said then


def _spaced(items: list, count: int) -> list:
    """At most `count` of the items, evenly spaced."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


def sample(speakers: dict[str, str], count: int) -> list[str]:
    """At most `count` of the utterances in `speakers` (with the speaker of each), evenly over these."""
    of: dict[str, list[str]] = {}
    for key in sorted(speakers):
        of.setdefault(speakers[key], []).append(key)
    each = max(FEWEST, count // len(of)) if len(speakers) > count else count
    chosen = [_spaced(of[speaker], each) for speaker in sorted(of)]
    total = sum(map(len, chosen))
    chosen = _spaced(chosen, max(1, len(chosen) * count // max(count, total)))
    return [key for keys in chosen for key in keys][:count]


def measures(
    dev: list[np.ndarray],
    train: list[np.ndarray],
    speakers: list[str],
    spans: dict[str, list[list[Span]]],
    frame_shift: float,
) -> dict[str, float]:
    """All that is below: of the vectors [T, D] of utterances of dev; and of train, with the speaker of each.

    `spans` of `dev` and of `train` are the phones of each utterance, if their times are known; from one vector to the
    next it is `frame_shift` seconds.
    """
    named = [
        [phones_at(each, len(frames), frame_shift) for each, frames in zip(spans[split], vectors, strict=True)]
        for split, vectors in (("train", train), ("dev", dev))
    ]
    return spread(dev) | speaker_probe(train, speakers) | phone_probe(train, dev, *named)


def spread(vectors: list[np.ndarray]) -> dict[str, float]:
    """The `dimensions`, their `effective_rank`, and the share of `dead_units` among them, of vectors [T, D]."""
    count = sum(map(len, vectors))
    mean = sum(each.sum(0, dtype=np.float64) for each in vectors) / count
    scatter = sum((each - mean).T @ (each - mean) for each in vectors)
    deviation = np.sqrt(scatter.diagonal())
    dead = float(np.mean(deviation <= DEAD * deviation.max()))
    return {"dimensions": len(mean), "effective_rank": effective_rank(scatter), "dead_units": dead}


def effective_rank(scatter: np.ndarray) -> float:
    """The exponential of the entropy of the shares of the singular values (Roy and Vetterli 2007).

    `scatter` [D, D] is X'X of the centered vectors X, whose singular values are the roots of its eigenvalues.
    """
    values = np.sqrt(np.linalg.eigvalsh(scatter).clip(min=0))
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def speaker_probe(vectors: list[np.ndarray], speakers: list[str]) -> dict[str, float]:
    """A linear probe (Alain and Bengio 2017): speakers from the means of utterances' vectors [T, D], standardized.

    Logistic regression learns the first half of each speaker's utterances. `speaker_accuracy` is the share that it
    gets right of the others, and `speaker_chance` that of always naming the speaker who has most of them. Without two
    speakers of two utterances there is neither.
    """
    count = Counter(speakers)
    names = sorted(speaker for speaker in count if count[speaker] > 1)
    if len(names) < 2:
        return {}
    train, test, seen = [], [], Counter()
    for i, speaker in enumerate(speakers):
        if count[speaker] > 1:
            (train if seen[speaker] < count[speaker] // 2 else test).append(i)
            seen[speaker] += 1
    pooled = np.stack([each.mean(0, dtype=np.float64) for each in vectors])
    within = np.mean([each.std(0, dtype=np.float64) for each in vectors], 0)
    # A mean that hardly moves is none: of features normalized by utterance rounding is left, and no dimension.
    pooled = pooled[:, pooled.std(0) > DEAD * within]
    labels = torch.tensor([names.index(speaker) if count[speaker] > 1 else -1 for speaker in speakers])
    x = torch.from_numpy((pooled - pooled[train].mean(0)) / pooled[train].std(0).clip(min=1e-12))
    weight, bias = logistic_regression(x[train], labels[train], len(names))
    right = (x[test] @ weight.T + bias).argmax(1) == labels[test]
    most = labels[test].bincount().max()
    return {"speaker_accuracy": int(right.sum()) / len(test), "speaker_chance": int(most) / len(test)}


def phones_at(spans: list[Span], count: int, frame_shift: float) -> list[str]:
    """The phone in whose span the center of each of `count` frames lies, empty where there is none.

    `spans` are in the order of time; of two that overlap, the later one counts. Windows and strides begin at the first
    sample, around which the first frame is centered: frame t is at t times `frame_shift` seconds.
    """
    if not spans:
        return [""] * count
    begins, durations = (np.array([span[i] for span in spans]) for i in range(2))
    # To the digits that times are written with, or the rounding of a sum would decide where one phone meets the next.
    centers, ends = (frame_shift * np.arange(count)).round(5), (begins + durations).round(5)
    last = np.searchsorted(begins, centers, side="right") - 1
    inside = (last >= 0) & (centers < ends[last])
    return [spans[i][2] if here else "" for i, here in zip(last, inside, strict=True)]


def phone_probe(
    train: list[np.ndarray], dev: list[np.ndarray], train_phones: list[list[str]], dev_phones: list[list[str]]
) -> dict[str, float]:
    """The same probe for phones, from single vectors: it learns those of train, [T, D] of each utterance.

    `phone_accuracy` is the share that it gets right of those of dev, and `phone_chance` that of always naming the phone
    that most of these have. A vector without a phone counts for nothing. Without two phones in train, and one in dev,
    there is neither.
    """
    (x, heard), (y, said) = _labeled(train, train_phones), _labeled(dev, dev_phones)
    names = sorted(set(heard))
    if len(names) < 2 or not said:
        return {}
    mean, deviation = x.mean(0), x.std(0)
    alive = deviation > DEAD * deviation.max()  # what rounding leaves is no dimension
    x, y = (torch.from_numpy((each - mean)[:, alive] / deviation[alive]) for each in (x, y))
    weight, bias = logistic_regression(x, torch.tensor([names.index(name) for name in heard]), len(names))
    best = (y @ weight.T + bias).argmax(1).tolist()
    right = sum(names[i] == name for i, name in zip(best, said, strict=True))
    most = max(Counter(said).values())
    return {"phone_accuracy": right / len(said), "phone_chance": most / len(said)}


def _labeled(vectors: list[np.ndarray], phones: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Vectors [N, D], float64, that have a phone, and their phones; a bounded part of all."""
    places = _spaced([(i, t) for i, each in enumerate(phones) for t, name in enumerate(each) if name], FRAMES)
    return np.array([vectors[i][t] for i, t in places], np.float64), [phones[i][t] for i, t in places]


def logistic_regression(x: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [C, D] and biases [C] for `x` [N, D], float64, and `labels` [N].

    They minimize the sum of the cross-entropies and half of the squared weights, as scikit-learn's do with C=1.
    """
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    engine = torch.optim.LBFGS([weight, bias], max_iter=STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        engine.zero_grad()
        cost = (
            torch.nn.functional.cross_entropy(x @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / 2
        )
        cost.backward()
        return cost

    engine.step(closure)
    return weight.detach(), bias.detach()
