"""edge-speech train"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.extras import import_extra

SUMMARY = "train a streaming model; a run that was interrupted goes on where it stopped"
EXAMPLES = (
    "edge-speech train recipes/digits.toml -o runs/digits --set data.root=/path/to/corpora\n"
    "edge-speech train recipes/digits.toml -o runs/quick --set data.root=… --set optimizer.steps=200\n"
    "torchrun --nproc-per-node 4 -m edge_speech train recipes/digits.toml -o runs/digits --set data.root=…"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe, where to, and changes to it."""
    parser.add_argument("config", metavar="CONFIG.toml", help="the recipe")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="folder for model.pt and the log"
    )
    parser.add_argument(
        "--set",
        metavar="key=value",
        action="append",
        default=[],
        help="change one value of the recipe, such as optimizer.steps=200; repeatable",
    )


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train or resume."""
    training = import_extra("edge_speech.training.train", "train")
    document: dict[str, Any] | None = training.run_command(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Where the model is, and the next step."""
    print(document["model"])
