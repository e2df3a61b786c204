"""edge-speech targets"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edge_speech.commands.table import print_table
from edge_speech.target import list_targets

SUMMARY = "list the devices a model can be optimised for"
EXAMPLES = "edge-speech targets\nedge-speech targets --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All profiles."""
    return [asdict(target) for target in list_targets()]


def show(document: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """One line per target."""
    rows = [["target", "arch", "cores", "RAM MiB", "backends", "description"]]
    for t in document:
        backends = ",".join(t["backends"])
        rows.append([t["name"], t["arch"], str(t["cores"]), str(t["ram_mib"]), backends, t["description"]])
    print_table(rows, left=(0, 1, 4, 5))
