"""edge-speech pack"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_speech.archive import pack
from edge_speech.bundle import sha256_of

SUMMARY = "make a bundle one file; every command reads it like the directory"
EXAMPLES = "edge-speech pack bundle -o digits.esb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, and where to."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Verify, then write."""
    output: Path = pack(args.bundle, args.output, args.force)
    return {"path": str(output), "bytes": output.stat().st_size, "sha256": sha256_of(output)}


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """What was written."""
    print(f"{document['path']}  {document['bytes']} bytes")
