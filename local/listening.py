"""The utterances that a front end changed most, to read and to hear, as HTML."""

import base64
import io
from html import escape
from pathlib import Path

from local import audio, manifest
from local.differences import Change, Heard, changes, contrasts, rows
from local.edits import GAP
from local.errors import InputError
from local.results import Cell
from local.tables import pair, title

SAMPLE_RATE = 16000  # Hz
TAGS = {"C": "span", "S": "mark", "D": "del", "I": "ins", "": "span"}
MARKS = "<mark>substituted</mark>, <del>***</del> deleted, <ins>inserted</ins>"


def utterances(found: list[dict], cells: list[Cell], data: dict[str, str]) -> str:
    """Those of the first entry of results.json with a comparison; `data` are the data directories by score directory.

    The comparison is that of the pretrained arm which is best on dev.
    """
    for entry in found:
        for c in contrasts(entry)[:1]:
            own, (arm, baseline) = rows(entry, cells), pair(entry, c)
            cell = own[c["arm"], c["signature"]][0]
            said = manifest.read(Path(data[str(cell.score_dir.parent)]) / cell.split)
            spoken = {utterance.id: utterance for utterance in said}
            seeds = " and ".join(map(str, c["matched_pairs"]["seeds"][::-1]))
            parts = [
                f"<p>{escape(title(entry))}. Numbers of errors are means over seeds; the words are those of seeds "
                f"{seeds} of {escape(baseline)} and {escape(arm)}, of median dev error. {MARKS}</p>\n"
            ]
            for what, changed in zip(("rose", "fell"), changes(c, own), strict=True):
                parts.append(f"<h3>Errors {what} most from {escape(baseline)} to {escape(arm)}</h3>\n")
                parts += [_utterance(one, baseline, arm, spoken[one.arm.id]) for one in changed] or ["<p>None.</p>\n"]
            return "".join(parts)
    return ""


def _utterance(one: Change, baseline: str, arm: str, utterance: manifest.Utterance) -> str:
    """The reference and below it both hypotheses, word by word, and a player."""
    columns = [("reference", escape(baseline), escape(arm))]
    for word, *both in one.columns:
        said = f'<span class="gap">{GAP}</span>' if word == GAP else escape(word)
        columns.append((said, *map(_heard, both)))
    words = "".join(f"<span>{''.join(f'<span>{word}</span>' for word in column)}</span>" for column in columns)
    return (
        f'<div class="utterance"><p><b>{escape(one.arm.id)}</b>: {one.before:.1f} to {one.after:.1f} errors '
        f'in {len(one.arm.reference)}</p>\n<div class="words">{words}</div>\n{_player(utterance)}</div>\n'
    )


def _heard(heard: Heard) -> str:
    word, op = heard
    return f"<{TAGS[op]}>{escape(word)}</{TAGS[op]}>"


def _player(utterance: manifest.Utterance) -> str:
    """The audio, as MP3, which every browser plays and which, unlike Ogg, is the same bytes each time."""
    import soundfile

    part = (utterance.start, utterance.duration) if utterance.recording else ()
    try:
        samples = audio.read(utterance.audio, SAMPLE_RATE, *part, resample=True)
    except InputError:
        return '<p class="soft">its audio is not at hand any more</p>'
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.8)
    return f'<audio controls preload="none" src="{embedded(file, "audio/mpeg")}"></audio>'


def embedded(file: io.BytesIO, kind: str) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
