"""edge-speech verify"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edge_speech.commands.table import print_table
from edge_speech.decoder import in_words
from edge_speech.verification import verify

SUMMARY = "check a bundle's files, then its artifacts against its golden vectors"
EXAMPLES = "edge-speech verify bundle\nedge-speech verify bundle.esb --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Raises InputError on a damaged bundle, CheckFailed when a stage is not golden any more."""
    return asdict(verify(args.bundle))


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """One line per artifact."""
    golden = "" if document["features_difference"] is not None else "; there are no golden vectors"
    print(f"{args.bundle}: {document['files']} files as the manifest says{golden}")
    if document["text"] is not None:
        print(f"decoder {in_words(document['decoder'])}: gives the golden text")
    rows = [["artifact", "backend", "precision", "status", "largest difference", "symbols agreeing"]]
    for check in document["artifacts"]:
        row = [check[key] for key in ("path", "backend", "precision", "status")]
        ran = check["max_abs_difference"] is not None
        figures = (
            [f"{check['max_abs_difference']:.2e}", f"{check['agreement']:.1%}"]
            if ran
            else ["not compared", "-"]
        )
        rows.append(row + figures)
    print_table(rows, left=(0, 1, 2, 3))
