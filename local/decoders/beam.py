"""Beam search without a lexicon (Graves et al. 2006; Hannun et al. 2014, arXiv 1408.2873), SpeechBrain's."""

import logging
from pathlib import Path

import numpy as np
from speechbrain.decoders.ctc import CTCBeamSearcher

from local.errors import InputError
from local.pieces import MARK
from local.search import Hypothesis, Search

BLANK = "<blank>"  # the name of what has no text
logging.getLogger("speechbrain.decoders.ctc").setLevel(logging.WARNING)  # it tells the place of the space each time
# And that words are few; that module sets its own level when it is loaded.
kenlm_log = logging.getLogger("speechbrain.integrations.decoders.kenlm_scorer")
kenlm_log.addFilter(lambda record: record.levelno >= logging.ERROR)


class Beam(Search):
    """The text whose alignments are together the most probable, of any words that `units` spell.

    With the n-gram model in directory `lm`, a word adds `lm_weight` times its log-probability and `word_score`, which
    are then the choices; the log10 probability of one that the model lacks is that of `<unk>` and `unknown_score`. The
    end of a sentence counts for nothing. Symbols of a list, as phones, are words. Kept are the best `beam` texts, none
    worse than the best by more than `threshold`, each continued by units of log-probabilities above -`token_threshold`.
    Raises InputError without KenLM's module.
    """

    def __init__(
        self,
        units: str | list[str],
        beam: int,
        threshold: float,
        token_threshold: float,
        lm: str | None = None,
        lm_weight: list[float] | None = None,
        word_score: list[float] | None = None,
        unknown_score: float = 0.0,
    ) -> None:
        pieces = isinstance(units, str) or any(unit.startswith(MARK) for unit in units)
        model = {}
        if lm is not None:
            self.choices = {"lm_weight": lm_weight, "word_score": word_score}
            words = (Path(lm) / "words").read_text(encoding="utf-8").split()
            model = {"kenlm_model_path": f"{lm}/lm.bin", "unigrams": words, "unk_score_offset": unknown_score}
        try:
            self.searcher = CTCBeamSearcher(
                blank_index=0,
                vocab_list=[BLANK, *(unit if pieces else MARK + unit for unit in units)],
                beam_size=beam,
                beam_prune_logp=-threshold,
                token_prune_min_logp=-token_threshold,
                prune_history=False,  # which would leave out some of a text's alignments
                **model,
            )
        except ImportError as error:
            raise InputError(
                f"{error.name or 'kenlm'}: no Python module of that name, and decoder=beam_lm needs it; "
                "local/install_kenlm.sh"
            ) from None
        except OSError:  # which tells where in KenLM's source it was thrown
            raise InputError(f"{lm}/lm.bin: KenLM cannot read it; remove {lm}, and run stage 6") from None
        self.use(**{name: values[0] for name, values in self.choices.items()})

    def use(self, **setting: float) -> None:
        """See Search."""
        if setting:
            self.searcher.lm.alpha, self.searcher.lm.beta = setting["lm_weight"], setting["word_score"]

    def search(self, frames: np.ndarray, count: int) -> list[Hypothesis]:
        """See Search."""
        self.searcher.topk = count
        found = self.searcher.decode_log_probs(frames.astype(np.float64), len(frames))
        return [Hypothesis(float(each.lm_score), each.text) for each in found]
