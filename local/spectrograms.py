"""Pictures of what an autoencoder is given and what it gives back."""

from pathlib import Path

import numpy as np

ROWS = ("features", "the encoder's input", "reconstruction")


def plot(excerpts: dict[str, list], frame_shift: float, path: Path, *, samples: bool) -> None:
    """A PNG at `path`: a column an utterance, its panels [T, D] from above, as ROWS says; one color scale a column.

    Of frames of samples the logarithm of their spectrum is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(excerpts), 7), layout="constrained")
    grid = FigureCanvasAgg(figure).figure.subplots(len(ROWS), len(excerpts), squeeze=False, sharex="col")
    for column, (key, panels) in zip(grid.T, sorted(excerpts.items()), strict=True):
        panels = [_spectrum(np.asarray(panel)) if samples else np.asarray(panel) for panel in panels]
        low, high = np.percentile(panels[0], [1, 99])
        for axes, name, panel in zip(column, ROWS, panels, strict=True):
            extent = (0, len(panel) * frame_shift, 0, panel.shape[1])
            axes.imshow(panel.T, origin="lower", aspect="auto", vmin=low, vmax=high, extent=extent)
            axes.set_title(f"{key}: {name}", fontsize="small")
        column[-1].set_xlabel("seconds")
    figure.savefig(path, format="png", dpi=80, metadata={"Software": None})


def _spectrum(frames: np.ndarray) -> np.ndarray:
    """[T, D] samples to [T, D // 2 + 1]."""
    return np.log(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) + 1e-3)
