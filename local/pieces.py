"""Word pieces by byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909), sentencepiece's.

An inventory is a list of pieces in the order in which they merge, single characters last; MARK begins a word.

    python -m local.pieces TEXT COUNT     # a Kaldi `text` or plain sentences; prints a line for conf/units/
"""

import argparse
import io
import json
import sys
from functools import lru_cache
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model

MARK = "\u2581"


@lru_cache(maxsize=4)
def segmenter(pieces: tuple[str, ...]) -> sentencepiece.SentencePieceProcessor:
    """What segments text by this inventory."""
    proto = model.ModelProto()
    proto.trainer_spec.model_type = model.TrainerSpec.BPE
    proto.normalizer_spec.name = "identity"
    proto.pieces.add(piece="<unk>", score=0, type=model.ModelProto.SentencePiece.UNKNOWN)
    for order, piece in enumerate(pieces):
        proto.pieces.add(piece=piece, score=-order, type=model.ModelProto.SentencePiece.NORMAL)
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def segmented(text: str, pieces: list[str]) -> list[str]:
    """The pieces of a text; of what none of them covers, the characters as they are."""
    return segmenter(tuple(pieces)).encode(text, out_type=str)


def joined(symbols: list[str]) -> str:
    """The text of pieces."""
    return " ".join("".join(symbols).replace(MARK, " ").split())


def learn(sentences: list[str], count: int) -> list[str]:
    """An inventory of `count` pieces, learnt from text."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, model_type="bpe", vocab_size=count + 1,
        character_coverage=1.0, normalization_rule_name="identity", bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0,
        minloglevel=2,
    )  # fmt: skip
    found = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [found.id_to_piece(i) for i in range(1, len(found))]


def main() -> None:
    """Print the inventory learnt from a file."""
    parser = argparse.ArgumentParser(
        prog="python -m local.pieces", description="Learn word pieces; print a line for a file in conf/units/."
    )
    parser.add_argument(
        "text", type=Path, metavar="TEXT", help="sentences, or if it is named text, Kaldi's, each after an utterance id"
    )
    parser.add_argument("count", type=int, metavar="COUNT", help="how many pieces")
    args = parser.parse_args()
    path = args.text
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.name == "text":
            lines = [sentence for line in lines for sentence in line.split(maxsplit=1)[1:]]
        if not any(map(str.strip, lines)):
            sys.exit(f"error: {path}: no sentence in it, expected text to learn from")
        print("inventory:", json.dumps(learn(lines, args.count), ensure_ascii=False))
    except OSError as error:
        sys.exit(f"error: {path}: cannot be read ({error.strerror}); expected a file of text")
    except UnicodeDecodeError:
        sys.exit(f"error: {path}: not UTF-8, expected sentences, or a Kaldi text")
    except (RuntimeError, ValueError) as error:  # sentencepiece's, of a count that the text cannot have
        sys.exit(f"error: {path}: {str(error).splitlines()[-1]}; ask for another number of pieces")


if __name__ == "__main__":
    main()
