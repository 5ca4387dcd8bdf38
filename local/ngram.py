"""KenLM's n-gram models, as flashlight-text reads them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from local.errors import InputError
from local.marker import damage, read_marker

UNKNOWN = "<unk>"
MARKS = ("<s>", "</s>", UNKNOWN)


def vocabulary(arpa: Path) -> list[str]:
    """The words of an ARPA file's unigrams; raises InputError if it is cut."""
    words, ended = [], False
    with open(arpa, encoding="utf-8") as lines:
        section = ""
        for line in lines:
            if line.startswith("\\"):
                section, ended = line.strip(), line.startswith("\\end\\")
            elif section == "\\1-grams:" and "\t" in line:
                words.append(line.split("\t")[1].strip())
    if not ended:
        raise InputError(f"{arpa}: ends before \\end\\, expected a whole ARPA file; estimate it again")
    return [word for word in words if word not in MARKS]


def listed(lines: Iterable[str]) -> Iterator[str]:
    """The words of a list, or of a pronunciation dictionary as Kaldi's lexicon.txt or CMUdict.

    Of those, lines begin with the word, whose further pronunciations are numbered, and `;;;` begins a comment.
    """
    for line in lines:
        if (fields := line.split()) and not line.startswith(";;;"):
            yield re.sub(r"\(\d+\)$", "", fields[0])


class Model:
    """A directory with `lm.bin`, its `words`, and `further` ones that it lacks; scores are log10 probabilities.

    Raises InputError if it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        if lost := damage(Path(directory), read_marker(directory) or {"outputs": {}}):
            raise InputError(f"{lost}: is not as stage 6 wrote it; remove {directory}, and run stage 6 again")
        words, further = ((Path(directory) / name).read_text(encoding="utf-8").split() for name in ("words", "further"))
        self.entries, self.unknown = [*words, UNKNOWN, *further], len(words)
        self.dictionary = Dictionary()
        for word in self.entries:
            self.dictionary.add_entry(word)
        try:
            self.kenlm = KenLM(str(Path(directory) / "lm.bin"), self.dictionary)
        except RuntimeError:  # which tells where in its source it was thrown
            raise InputError(f"{directory}/lm.bin: KenLM cannot read it; remove {directory}, and run stage 6") from None

    def unigrams(self) -> Iterator[tuple[int, str, float]]:
        """The number of each word, and its score by itself: of a further one, that of any unknown word."""
        start = self.kenlm.start(True)
        for number, word in enumerate(self.entries):
            if number != self.unknown:
                yield number, word, self.kenlm.score(start, number)[1]

    def measures(self, sentences: list[list[str]]) -> dict[str, float]:
        """Perplexity by word, ends of sentences counted, and the share of words that are unknown."""
        number = {word: i for i, word in enumerate(self.entries[: self.unknown])}
        total, count, unknown = 0.0, 0, 0
        for sentence in sentences:
            state = self.kenlm.start(False)
            for word in sentence:
                state, score = self.kenlm.score(state, number.get(word, self.unknown))
                total += score
                unknown += word not in number
            total += self.kenlm.finish(state)[1]
            count += len(sentence) + 1
        spoken = sum(map(len, sentences))
        return {"perplexity": 10 ** (-total / max(1, count)), "unknown": unknown / max(1, spoken)}
