"""edge-speech optimize"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.decoding import add_decoder_options
from edge_speech.commands.extras import import_extra

SUMMARY = "turn model.pt into a verified, measured bundle for a device"
EXAMPLES = (
    "edge-speech optimize model.pt --target linux-x86_64 -o bundle --dry-run\n"
    "edge-speech optimize model.pt --target linux-arm64 -o bundle --eval dev.jsonl --calibration cal.jsonl\n"
    "edge-speech optimize model.pt --target linux-arm64 -o bundle --eval dev.jsonl --lm lm.arpa\n"
    "edge-speech optimize model.pt --target raspberry-pi-5 -o pi --eval dev.jsonl --device-bench pi.json\n"
    "edge-speech optimize model.pt --target linux-arm64 -o bundle --eval dev.jsonl \\\n"
    "    --calibration cal.jsonl --pruning-ratio 0.4 --fine-tune recipe.toml --accuracy-budget 1\n"
    "edge-speech optimize model.pt --target linux-arm64 -o bundle --eval dev.jsonl --calibration cal.jsonl "
    "--search 50"
)
PRECISIONS = ("auto", "fp32", "fp16", "int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the device, and what may be traded for what."""
    parser.add_argument(
        "model", metavar="MODEL.pt", help="checkpoint made by `edge-speech train`, or a bundle's folder"
    )
    parser.add_argument("--target", metavar="NAME", required=True, help="device; see `edge-speech targets`")
    parser.add_argument("-o", "--output", metavar="BUNDLE", required=True, help="bundle to write")
    parser.add_argument("--eval", metavar="MANIFEST", help="recordings to measure WER on, before and after")
    parser.add_argument("--calibration", metavar="MANIFEST", help="recordings for static int8 ranges")
    parser.add_argument(
        "--accuracy-budget",
        metavar="PERCENT_ABS_WER",
        type=float,
        default=0.5,
        help="points of absolute WER an artifact may lose (default: 0.5)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto keeps int8 only where it pays (default)"
    )
    parser.add_argument("--backends", metavar="a,b", help="engines to build for (default: the target's)")
    add_decoder_options(parser.add_argument_group("the bundle's decoder (greedy unless given)"))
    _add_pruning(parser.add_argument_group("pruning before all else (needs --calibration)"))
    parser.add_argument(
        "--device-bench",
        metavar="FILE",
        action="append",
        help="what `edge-speech bench BUNDLE --json` gave on the device, to choose by; may be repeated",
    )
    _add_search_options(parser.add_argument_group("search (needs --eval)"))
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument(
        "--cache", metavar="DIR", help="where finished steps are kept (default: .BUNDLE.cache beside BUNDLE)"
    )
    parser.add_argument("--no-cache", action="store_true", help="make every step anew, keep none")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")


def _add_search_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--search", metavar="N", type=int, help="try N forms of the model: precisions, pruning, chunk lengths"
    )
    group.add_argument(
        "--search-models",
        metavar="a.pt,b.pt",
        help="further checkpoints to choose from, such as smaller",
    )
    group.add_argument(
        "--search-chunk-ms", metavar="a,b", help="chunk lengths to try (default: half and twice the model's)"
    )
    group.add_argument(
        "--search-limit",
        metavar="K",
        type=int,
        default=100,
        help="utterances of --eval for a trial, 0 for all; the best are judged on all (default: 100)",
    )
    group.add_argument(
        "--search-jobs", metavar="J", type=int, default=1, help="processes that run trials (default: 1)"
    )


def _add_pruning(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pruning-ratio", metavar="R", type=float, help="fraction of the parameters to take out"
    )
    group.add_argument("--fine-tune", metavar="RECIPE.toml", help="train what is left; goes on if stopped")
    group.add_argument("--set", metavar="KEY=VALUE", action="append", help="change the recipe")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Carry out the plan, or print it."""
    pipeline = import_extra("edge_speech_tools.pipeline", "tools")
    document: dict[str, Any] = pipeline.run_command(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Where the bundle is; a plan has been printed already."""
    if not args.dry_run:
        print(document["bundle"])
