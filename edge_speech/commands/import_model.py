"""edge-speech import"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.extras import import_extra

SUMMARY = "turn a streaming CTC model that someone else exported into a bundle"
EXAMPLES = (
    "edge-speech import model.onnx --tokens tokens.txt -o bundle --audio speech.wav\n"
    "edge-speech import model.pt --tokens tokens.txt --spec spec.toml -o bundle\n"
    "edge-speech optimize bundle --target linux-arm64 -o smaller --eval dev.jsonl"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, its tokens, and what its file does not tell."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="streaming ONNX (ours; zipformer2, WeNet or NeMo CTC for sherpa-onnx; others with --spec), "
        "TorchScript, or torch.export (.pt2)",
    )
    parser.add_argument("--tokens", metavar="FILE", required=True, help="its tokens.txt, `symbol id` a line")
    parser.add_argument("-o", "--output", metavar="BUNDLE", required=True, help="bundle to write")
    parser.add_argument("--spec", metavar="FILE.toml", help="what the file does not tell: docs/importing.md")
    parser.add_argument(
        "--audio", metavar="FILE", help="speech to try it on, which becomes the golden recording"
    )
    parser.add_argument(
        "--target", metavar="NAME", default="linux-x86_64", help="device (default: linux-x86_64)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Import."""
    command = import_extra("edge_speech_tools.importing.command", "tools")
    document: dict[str, Any] = command.run_command(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """What it hears, where there is speech, and where the bundle is."""
    if args.audio:
        print(document["text"])
    print(document["bundle"])
