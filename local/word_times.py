"""When the words of a hypothesis were said, by the best path of CTC (Graves et al. 2006) that spells them."""

import numpy as np

from local.errors import InputError
from local.text import decode, encode, feasible, words


def align(frames: np.ndarray, labels: list[int]) -> list[tuple[int, int]]:
    """The first and the last frame of each label on the most probable path through log-probabilities [T, 1 + units].

    Between labels there may be blanks (index 0), and between equal ones there is one. Needs as many frames.
    """
    states = np.zeros(2 * len(labels) + 1, int)  # a blank, a label, a blank, ...
    states[1::2] = labels
    jump = np.zeros(len(states), bool)  # where the blank before a label may be left out
    jump[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = frames[0, states[:2]]
    steps = np.zeros((len(frames), len(states)), np.int8)  # how many states each came on by
    for t in range(1, len(frames)):
        before = np.pad(score, (2, 0), constant_values=-np.inf)
        options = np.stack([score, before[1:-1], np.where(jump, before[:-2], -np.inf)])
        steps[t] = options.argmax(0)
        score = options.max(0) + frames[t, states]
    state = len(states) - 1 - int(score[-2:].argmax() == 0 and len(states) > 1)
    path = [state]
    for step in steps[:0:-1]:
        path.append(path[-1] - int(step[path[-1]]))
    path = np.array(path[::-1])
    places = [np.flatnonzero(path == 2 * i + 1) for i in range(len(labels))]
    return [(int(place[0]), int(place[-1])) for place in places]


def times(
    frames: np.ndarray, text: str, units: str | list[str], frame_shift: float, duration: float
) -> list[tuple[str, float, float]]:
    """Each word of a hypothesis with its begin and end in seconds.

    A frame stands for `frame_shift` seconds around its center; nothing begins before 0 or ends after `duration`. Raises
    InputError where the text has more units than there are frames.
    """
    best = frames.argmax(1)
    ends = np.append(np.flatnonzero(np.diff(best)), len(best) - 1)  # the last frame of each run of a label
    runs = zip(np.append(0, ends[:-1] + 1).tolist(), ends.tolist(), strict=True)
    spans = [run for run in runs if best[run[0]]]
    labels = [int(best[first]) for first, _ in spans]
    if decode(labels, units) != text:  # a language model had its say
        labels = encode(text, units)
        if not feasible(labels, len(frames)):  # pieces merge anew, and not always into as few
            raise InputError(f"{text!r} has more units than its {len(frames)} frames, so its words have no times")
        spans = align(frames, labels)
    found = []
    for places in words(labels, units):
        begin, end = spans[places[0]][0] - 0.5, spans[places[-1]][1] + 0.5
        word = decode([labels[place] for place in places], units)
        found.append((word, max(0.0, begin * frame_shift), min(duration, end * frame_shift)))
    return found
