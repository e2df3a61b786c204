"""edge-speech inspect"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.bundle import as_json, read_bundle
from edge_speech.commands.table import print_table
from edge_speech.decoder import in_words
from edge_speech.features import frontend_from_dict

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
    frontend, encoder = frontend_from_dict(document["frontend"]), document["encoder"]
    shift_ms = frontend.frame_shift_ms
    print(f"target    {document['target']}")
    kind = document["frontend"]["type"]
    print(f"frontend  {kind}, {frontend.num_features} features, {frontend.sample_rate} Hz")
    print(
        f"encoder   chunk {encoder['chunk_frames'] * shift_ms:g} ms, lookahead "
        f"{encoder['right_context_frames'] * shift_ms:g} ms, one row per "
        f"{encoder['subsampling_factor'] * shift_ms:g} ms, {len(encoder['state'])} state tensors"
    )
    lm = document["decoder"].get("lm")
    file = "" if lm is None else f", {lm['path']} of {lm['bytes']} bytes"
    print(f"decoder   {in_words(document['decoder'])}, {encoder['vocab_size']} tokens{file}")
    print(f"quality   {_plain(document['quality'] or 'not measured')}")
    print(f"measured  {_plain((document['performance'] or {}).get('results', 'nothing'))}")
    rows = [["artifact", "backend", "precision", "status", "bytes"]]
    artifacts = document["artifacts"]
    rows += [[a["path"], a["backend"], a["precision"], a["status"], str(a["bytes"])] for a in artifacts]
    print_table(rows, left=(0, 1, 2, 3))


def _plain(value: object) -> str:
    """A JSON value without its brackets: what others wrote here is shown, whatever it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_plain(part) for part in value)
    return str(value)
