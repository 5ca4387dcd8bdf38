"""Beam search over the words of an n-gram language model (Collobert et al. 2016), flashlight-text's."""

import math

import torch
from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions, SmearingMode, Trie

from local.edits import count_words
from local.errors import InputError
from local.ngram import Model

SPACE = " "
NEVER = 1e4  # a log-probability, negated, that no beam follows


class Lexicon:
    """The words of the model in directory `lm`, spelled in characters, each followed by a space.

    `lm_weight` and `word_score` list what `tune` tries; before that, the first of each is used. Words with a character
    outside `units` cannot be found. Raises InputError for units without a space.
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
    ) -> None:
        if not isinstance(units, str) or SPACE not in units:
            raise InputError(
                "decoder=lexicon spells words in characters, and these units are others; use decoder=greedy"
            )
        self.beam = (beam, min(tokens, 1 + len(units)), threshold)
        self.lm_weight, self.word_score = lm_weight, word_score
        self.model, self.space = Model(lm), 1 + units.index(SPACE)
        self.trie = Trie(1 + len(units), self.space)
        for number, (word, score) in enumerate(zip(self.model.words, self.model.unigrams(), strict=True)):
            if set(word) <= set(units):
                self.trie.insert([1 + units.index(letter) for letter in word] + [self.space], number, score)
        self.trie.smear(SmearingMode.MAX)
        self.use(lm_weight[0], word_score[0])

    def use(self, lm_weight: float, word_score: float) -> None:
        """Search with these from now on."""
        options = LexiconDecoderOptions(
            *self.beam, lm_weight, word_score, -math.inf, 0.0, False, CriterionType.CTC
        )  # no unknown words, no score for a space, and of one word sequence the best path
        unknown = self.model.unknown
        self.search = LexiconDecoder(options, self.trie, self.model.kenlm, self.space, 0, unknown, [], False)

    def __call__(self, log_probabilities: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """[B, T, 1 + units] log-probabilities with lengths [B] to B texts."""
        return [self.best(frames[:length]) for frames, length in zip(log_probabilities, lengths.tolist(), strict=True)]

    def best(self, frames: torch.Tensor) -> str:
        """The text of one utterance's log-probabilities [T, 1 + units]."""
        last = torch.full_like(frames[:1], -NEVER)
        last[0, self.space] = 0  # a recognizer puts spaces between words, and none after the last one
        frames = torch.cat([frames, last]).float().cpu().contiguous()
        best = self.search.decode(frames.data_ptr(), *frames.shape)[0]
        return " ".join(self.model.words[number] for number in best.words if number >= 0)

    def tune(self, frames: list[torch.Tensor], references: list[str]) -> list[dict]:
        """Use the weight with the fewest word errors, and then the word score; returns all trials, the best first."""
        trials: list[dict] = []

        def attempt(lm_weight: float, word_score: float) -> None:
            self.use(lm_weight, word_score)
            wer = count_words(references, [self.best(each) for each in frames]).rate
            trials.append({"lm_weight": lm_weight, "word_score": word_score, "wer": wer})

        for weight in self.lm_weight:
            attempt(weight, self.word_score[0])
        weight = min(trials, key=lambda trial: trial["wer"])["lm_weight"]
        for score in self.word_score[1:]:
            attempt(weight, score)
        trials.sort(key=lambda trial: trial["wer"])
        self.use(trials[0]["lm_weight"], trials[0]["word_score"])
        return trials
