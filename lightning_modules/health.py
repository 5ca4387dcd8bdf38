"""Whether a CTC training speaks: it emits blanks alone for a while, and sometimes forever or again."""

FLAT = 95.0  # percent of the words wrong at which a WER says nothing


def health(rows: list[dict]) -> dict:
    """What the validations of a CTC training show, `rows` of its history.

    `blank_rate` of the frames and `empty_rate` of the hypotheses at the last one; `first_emission`, the step of the
    first validation since which some hypothesis has words, or None; and `state`: "speaking"; "plateau" if
    its WER is flat because it has not spoken yet, and more updates may help; "collapse" if it spoke before, or its
    loss has risen from its lowest by a tenth, and they will not; "untrained" without a row.
    """
    if not rows:
        return {"blank_rate": None, "empty_rate": None, "first_emission": None, "state": "untrained"}
    last, empty = rows[-1], [row["health/empty_rate"] for row in rows]
    silent = [i for i, rate in enumerate(empty) if rate == 1]
    spoken = rows[silent[-1] + 1 :] if silent else rows
    if last["val_wer"] < FLAT and empty[-1] < 0.5:
        state = "speaking"
    elif min(row["val_wer"] for row in rows) < FLAT or last["val_loss"] > 1.1 * min(row["val_loss"] for row in rows):
        state = "collapse"
    else:
        state = "plateau"
    return {
        "blank_rate": last["health/blank_rate"],
        "empty_rate": empty[-1],
        "first_emission": spoken[0]["step"] if spoken else None,
        "state": state,
    }
