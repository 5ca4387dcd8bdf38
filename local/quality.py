"""What vectors hold, whatever made them: how many dimensions they fill, and how well speakers are told apart by them.

T vectors of an utterance, D dimensions, U utterances, S speakers. There is no probe for phones: a data directory has
no times of them.
"""

from collections import Counter

import numpy as np
import torch

MEASURED = 200  # utterances of dev, at most
PROBED = 400  # of train, where speakers have several
FEWEST = 4  # of a speaker who has them, where not all are taken
DEAD = 1e-3  # of the largest standard deviation, up to which a dimension says nothing
STEPS = 100  # of L-BFGS; some 20 reach the optimum


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


def measures(dev: list[np.ndarray], train: list[np.ndarray], speakers: list[str]) -> dict[str, float]:
    """All that is below: of the vectors [T, D] of utterances of dev; and of train, with the speaker of each."""
    return spread(dev) | speaker_probe(train, speakers)


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


def logistic_regression(x: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [S, D] and biases [S] for `x` [U, D], float64, and `labels` [U].

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
