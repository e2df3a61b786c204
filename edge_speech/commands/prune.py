"""edge-speech prune"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.extras import import_extra

SUMMARY = "make model.pt smaller: fewer layers and channels, really gone, and train what is left"
EXAMPLES = (
    "edge-speech prune model.pt -o smaller.pt --ratio 0.4 --calibration cal.jsonl\n"
    "edge-speech prune model.pt -o smaller.pt --ratio 0.4 --calibration cal.jsonl \\\n"
    "    --fine-tune recipe.toml --set data.root=/path/to/corpora --set optimizer.steps=2000\n"
    "edge-speech prune model.pt -o sparse.pt --sparsity 2:4"
)
IMPORTANCE = ("taylor", "activation", "magnitude")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, how much of it goes, by what measure, and how the rest is trained."""
    parser.add_argument("model", metavar="MODEL.pt", help="checkpoint made by `edge-speech train`")
    parser.add_argument("-o", "--output", metavar="SMALLER.pt", required=True, help="checkpoint to write")
    parser.add_argument("--ratio", metavar="R", type=float, help="fraction of the parameters to take out")
    parser.add_argument(
        "--fields",
        metavar="a,b",
        help="settings that may shrink, such as num_layers, feed_forward_dim (the default where there are "
        "both), num_heads, head_dim, conv_channels, d_model, hidden_dim, channels",
    )
    parser.add_argument(
        "--importance", choices=IMPORTANCE, default="taylor", help="which channels stay (default: taylor)"
    )
    parser.add_argument("--calibration", metavar="MANIFEST", help="recordings to measure importance on")
    parser.add_argument(
        "--tile", metavar="N", type=int, default=8, help="channels left are a multiple of this (default: 8)"
    )
    parser.add_argument(
        "--subnetwork",
        metavar="FIELD=N,…",
        help="take out a network that was trained with [supernet], such as num_layers=4,feed_forward_dim=128",
    )
    parser.add_argument("--sparsity", metavar="N:M", help="then zero weights: 2:4, or a fraction such as 0.5")
    parser.add_argument(
        "--fine-tune", metavar="RECIPE.toml", help="train what is left by this recipe; goes on if stopped"
    )
    parser.add_argument(
        "--iterations", metavar="N", type=int, default=1, help="prune and train in so many steps (default: 1)"
    )
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", help="change the recipe")
    parser.add_argument("--force", action="store_true", help="replace SMALLER.pt and begin anew")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Prune."""
    command = import_extra("edge_speech_tools.prune.command", "train" if args.fine_tune else "tools")
    document: dict[str, Any] = command.run_command(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """What became of the model."""
    for name, (before, after) in document["changes"].items():
        print(f"{name:<18} {before:>9} → {after}")
    counts = f"{document['dense_parameters']:>9} → {document['parameters']}, {document['ratio']:.1%} gone"
    print(f"{'parameters':<18} {counts}")
    print(document["model"])
