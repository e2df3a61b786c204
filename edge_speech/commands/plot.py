"""edge-speech plot"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.extras import import_extra

SUMMARY = "draw the curve of a training run"
EXAMPLES = "edge-speech plot runs/digits\nedge-speech plot runs/digits -o curve.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where to."""
    parser.add_argument("folder", metavar="DIR", help="the folder given to `edge-speech train -o`")
    parser.add_argument("-o", "--output", metavar="PNG", help="picture to write (default: DIR/curve.png)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draw."""
    plot = import_extra("edge_speech.training.plot", "train")
    document: dict[str, Any] = plot.run_command(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Where the picture is."""
    print(document["plot"])
