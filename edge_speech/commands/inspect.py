"""edge-speech inspect"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.bundle import as_json, read_bundle
from edge_speech.commands.table import print_table

SUMMARY = "what is in a bundle"
EXAMPLES = "edge-speech inspect bundle\nedge-speech inspect bundle --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The manifest."""
    return as_json(read_bundle(args.bundle).manifest)


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The manifest in short."""
    frontend, encoder = document["frontend"], document["encoder"]
    rate = frontend.get("sample_rate", 16000)
    shift_ms = float(frontend.get("frame_shift_ms", 10.0))
    print(f"target    {document['target']}")
    print(f"frontend  {frontend['type']}, {encoder['num_features']} bins, {rate} Hz")
    print(
        f"encoder   chunk {encoder['chunk_frames'] * shift_ms:g} ms, lookahead "
        f"{encoder['right_context_frames'] * shift_ms:g} ms, one row per "
        f"{encoder['subsampling_factor'] * shift_ms:g} ms, {len(encoder['state'])} state tensors"
    )
    print(f"decoder   {document['decoder']['type']}, {encoder['vocab_size']} tokens")
    _show_figures("quality", document["quality"])
    _show_figures("measured", document["performance"])
    rows = [["artifact", "backend", "precision", "status", "bytes"]]
    rows += [
        [a["path"], a["backend"], a["precision"], a["status"], str(a["bytes"])] for a in document["artifacts"]
    ]
    print_table(rows, left=(0, 1, 2, 3))


def _show_figures(title: str, figures: dict[str, Any] | None) -> None:
    plain = {k: v for k, v in (figures or {}).items() if isinstance(v, (str, int, float, list))}
    if plain:
        print(f"{title:<9} " + ", ".join(f"{key} {value}" for key, value in plain.items()))
