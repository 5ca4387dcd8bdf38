"""Beam search over the words of an n-gram language model (Collobert et al. 2016), flashlight-text's."""

import math

import numpy as np
from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions, SmearingMode, Trie

from local.errors import InputError
from local.ngram import Model
from local.search import Hypothesis, Search

SPACE = " "
NEVER = 1e4  # a log-probability, negated, that no beam follows


class Lexicon(Search):
    """The words of the model in directory `lm`, and further ones, spelled in characters, each followed by a space.

    Of its choices, `lm_weight` and `word_score` are added for words; `prior_weight` is how much of the log-probability
    that blank and units [1 + units] have at large, `prior`, is taken from that of each frame, as in hybrid systems
    (Miao et al. 2015): the language model has its own of what is frequent. A hypothesis has the score of its best path,
    all included. Raises InputError for units without a space, and for a word that they do not spell.
    """

    def __init__(
        self,
        units: str | list[str],
        lm: str,
        beam: int,
        tokens: int,
        threshold: float,
        lm_weight: list[float],
        word_score: list[float],
        prior_weight: list[float],
        prior: list[float] | None = None,
    ) -> None:
        self.check(units)
        self.beam = (beam, min(tokens, 1 + len(units)), threshold)
        self.prior = np.zeros(1 + len(units), np.float32) if prior is None else np.array(prior, np.float32)
        if self.prior.shape != (1 + len(units),):
            raise InputError(
                f"prior of {self.prior.size} numbers, expected one for blank and each of {len(units)} units"
            )
        self.choices = {"lm_weight": lm_weight, "word_score": word_score, "prior_weight": prior_weight}
        self.model, self.space = Model(lm), 1 + units.index(SPACE)
        self.trie = Trie(1 + len(units), self.space)
        index = {letter: number for number, letter in enumerate(units, 1)}
        for number, word, score in self.model.unigrams():
            if unknown := [letter for letter in word if letter not in index]:
                raise InputError(
                    f"{lm}/words: {word!r} has {unknown[0]!r}, expected only units.inventory={units!r}; "
                    "normalize the text in lm.text, or leave the word out of it"
                )
            self.trie.insert([index[letter] for letter in word] + [self.space], number, score)
        self.trie.smear(SmearingMode.MAX)
        self.use(lm_weight[0], word_score[0], prior_weight[0])

    @classmethod
    def check(cls, units: str | list[str]) -> None:
        """See Search."""
        if not isinstance(units, str) or SPACE not in units:
            raise InputError(
                "decoder=lexicon spells words in characters, and these units are others, of which no dictionary of "
                "pronunciations makes words; use decoder=beam_lm, or units=characters"
            )

    def use(self, lm_weight: float, word_score: float, prior_weight: float) -> None:
        """See Search."""
        self.taken = prior_weight * self.prior
        options = LexiconDecoderOptions(
            *self.beam, lm_weight, word_score, -math.inf, 0.0, False, CriterionType.CTC
        )  # no unknown words, no score for a space, and of one word sequence the best path
        unknown = self.model.unknown
        self.decoder = LexiconDecoder(options, self.trie, self.model.kenlm, self.space, 0, unknown, [], False)

    def search(self, frames: np.ndarray, count: int) -> list[Hypothesis]:
        """See Search."""
        last = np.full((1, frames.shape[1]), -NEVER, np.float32)
        last[0, self.space] = 0  # a recognizer puts spaces between words, and none after the last one
        frames = np.concatenate([frames - self.taken, last])
        found: dict[str, float] = {}  # a text may end in several paths, the best first
        for path in self.decoder.decode(frames.ctypes.data, *frames.shape):
            text = " ".join(self.model.entries[number] for number in path.words if number >= 0)
            found.setdefault(text, path.score)
            if len(found) == count:
                break
        return [Hypothesis(score, text) for text, score in found.items()]
