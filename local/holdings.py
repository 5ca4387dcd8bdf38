"""The table of what each arm's bottleneck holds, as rows of text; what they mean says local/quality.py."""

CAPTION = (
    "What the bottleneck holds on dev, before any fine-tuning. Errors are squared, as shares of the variance: 1 is "
    "what predicting the mean gives, and interpolation is that across the masked gaps. A linear probe tells the "
    "speakers of train apart by the means of held-out utterances; in brackets, what always naming the most frequent "
    "one gives. {phones}`features` are the encoder's input, whose means CMVN may have taken away:"
)
PHONES = "Another, trained on frames of train, names the phones of those of dev, folded as they are scored. "
COLUMNS = {  # of results.json, how each is called, and its form
    "dimensions": ("dimensions", "{:.0f}"),
    "masked_error": ("error, masked", "{:.3f}"),
    "interpolation_error": ("interpolation", "{:.3f}"),
    "reconstruction_error": ("error, all", "{:.3f}"),
    "effective_rank": ("effective rank", "{:.1f}"),
    "dead_units": ("dead units %", "{:.1%}"),
    "perplexity": ("perplexity", "{:.1f}"),
    "kl": ("KL, nats", "{:.2f}"),
    "speaker_accuracy": ("speakers %", "{:.1%}"),
    "phone_accuracy": ("phones %", "{:.1%}"),
}
CHANCES = {"speaker_accuracy": "speaker_chance", "phone_accuracy": "phone_chance"}  # which stand in brackets


def _shown(entry: dict, names: dict[tuple[str, str], str]) -> list[tuple[str, dict]]:
    """A name and numbers for each arm that was measured, and for the features before them."""
    measured = [(names[row["arm"], row["signature"]], row["quality"]) for row in entry["arms"] if "quality" in row]
    features = [("features", numbers["features"]) for _, numbers in measured]
    return [*(each for i, each in enumerate(features) if each not in features[:i]), *measured]


def caption(entry: dict) -> str:
    """What stands above the table."""
    probed = any("phone_accuracy" in row.get("quality", {}) for row in entry["arms"])
    return CAPTION.format(phones=PHONES if probed else "")


def table(entry: dict, names: dict[tuple[str, str], str]) -> list[list[str]]:
    """A header and a row for each arm of an entry of results.json; nothing where none was measured.

    A column is there if some row has it. `names` are those of (arm, signature).
    """
    shown = _shown(entry, names)
    keys = [key for key in COLUMNS if any(key in numbers for _, numbers in shown)]
    rows = [["arm", *(COLUMNS[key][0] for key in keys)]]
    for name, numbers in shown:
        rows.append([name, *(_cell(numbers, key) for key in keys)])
    return rows if shown else []


def _cell(numbers: dict, key: str) -> str:
    """A number in its form; with what chance gives behind it, if that is known."""
    if key not in numbers:
        return "-"
    form, chance = COLUMNS[key][1], numbers.get(CHANCES.get(key))
    return (form.format(numbers[key]) + ("" if chance is None else f" ({form.format(chance)})")).replace("%", "")
