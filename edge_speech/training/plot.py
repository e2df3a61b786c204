"""`edge-speech plot DIR`: the curve of a training run, from its `log.jsonl`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; a last line cut short by an interruption is left out. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such log; give the folder that edge-speech train -o wrote")
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            lines[int(line["step"])] = line  # a resumed run repeats the steps after its checkpoint
        except (ValueError, KeyError, TypeError):
            continue
    if not lines:
        raise InputError(f"{path} holds no training step yet")
    return [lines[step] for step in sorted(lines)]


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and learning rate over steps, and every error rate that was measured, into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates = sorted({key for line in lines for key in line if key.startswith("dev_")})
    figure = Figure(figsize=(8, 3 + 2.5 * bool(rates)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + bool(rates), 1, sharex=True, squeeze=False)[:, 0]
    steps = [line["step"] for line in lines]
    axes[0].semilogy(steps, [max(line["loss"], 1e-6) for line in lines], label="loss")
    axes[0].set_ylabel("loss")
    rate_axis = axes[0].twinx()
    rate_axis.plot(steps, [line["learning_rate"] for line in lines], color="tab:gray", linestyle=":")
    rate_axis.set_ylabel("learning rate (dotted)")
    for key in rates:
        points = [(line["step"], line[key]) for line in lines if key in line]
        axes[1].plot(*zip(*points, strict=True), marker="o", markersize=3, label=key)
    if rates:
        axes[1].set_ylabel("mean absolute error" if rates == ["dev_mae"] else "error rate, %")
        axes[1].legend()
    axes[-1].set_xlabel("step")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=110, format="png")
    os.replace(temporary, path)


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech plot`: arguments `folder`, `output` → {"plot", "steps"}."""
    folder = Path(args.folder)
    lines = read_log(folder / "log.jsonl")
    path = Path(args.output) if args.output else folder / "curve.png"
    plot(lines, path)
    return {"plot": str(path), "steps": lines[-1]["step"]}
