"""The surface of a tuning as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_speech.lm.output import replaced
from edge_speech.lm.tune import Tuning


def plot(tuning: Tuning, path: Path | str) -> None:
    """WER over lm_weight and word_bonus into a PNG, every cell with its figure, the best one framed."""
    weights = sorted({p.lm_weight for p in tuning.points})
    bonuses = sorted({p.word_bonus for p in tuning.points})
    wer = np.zeros((len(bonuses), len(weights)))
    for p in tuning.points:
        wer[bonuses.index(p.word_bonus), weights.index(p.lm_weight)] = p.wer
    figure = Figure(figsize=(2 + 0.8 * len(weights), 2 + 0.5 * len(bonuses)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(wer, origin="lower", aspect="auto", cmap="viridis_r")
    middle = (wer.min() + wer.max()) / 2
    for (row, column), value in np.ndenumerate(wer):
        color = "white" if value > middle else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    best = tuning.points[0]
    at = weights.index(best.lm_weight), bonuses.index(best.word_bonus)
    axes.plot(*at, marker="s", markersize=30, markerfacecolor="none", markeredgecolor="tab:red")
    axes.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
    axes.set_yticks(range(len(bonuses)), [f"{b:g}" for b in bonuses])
    axes.set(xlabel="lm_weight", ylabel="word_bonus, nats")
    axes.set_title(f"WER, %; greedy {tuning.wer_greedy:.2f}, beam without the model {tuning.wer_beam:.2f}")
    with replaced(path) as part:
        figure.savefig(part, dpi=110, format="png")
