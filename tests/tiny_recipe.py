"""The smallest recipe that trains on the shipped clips; tests change what they are about."""

from __future__ import annotations

from pathlib import Path

from edge_speech.training.recipe import Compose, Data, Optimizer, Recipe, Run, Source

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def tiny_recipe(root: Path, steps: int = 4, num_layers: int = 1, dropout: float = 0.0) -> Recipe:
    """A conformer of 16 dimensions that learns single clips of the folder and is watched on them."""
    source = Source("clips.jsonl", compose=Compose(max_count=1))
    return Recipe(
        data=Data((source,), root=str(root), dev=(Source("clips.jsonl"),), vocabulary=DIGITS),
        model={
            "d_model": 16,
            "num_layers": num_layers,
            "num_heads": 2,
            "feed_forward_dim": 32,
            "dropout": dropout,
        },
        frontend={"type": "fbank", "sample_rate": 8000, "num_mel_bins": 23},
        optimizer=Optimizer(steps=steps, batch_size=4, warmup_steps=2),
        run=Run(workers=0, log_every=1, evaluate_every=2, checkpoint_every=2),
    )
