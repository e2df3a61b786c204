"""edge-speech data"""

from __future__ import annotations

import argparse
from typing import Any

from edge_speech.commands.table import print_table
from edge_speech.commands.verbs import add_verb
from edge_speech.errors import CheckFailed
from edge_speech.page import check_page, write_page
from edge_speech.validation.html import render
from edge_speech.validation.report import set_rows, validate

SUMMARY = "data sets: check them before training"
EXAMPLES = (
    "edge-speech data validate train.jsonl dev.jsonl test.jsonl --html data.html\n"
    "edge-speech data validate kaldi/data/train --json"
)
_VALIDATE = """\
Read every recording and text of the manifests (JSON lines or Kaldi directories) and tell what is broken:
missing, unreadable, empty (exit code 1); and what deserves a look: sample rates, odd characters, outliers in
length and speaking rate, clipping, silence, DC offset, noise, and what two manifests have in common: audio,
texts, speakers. The SNR is estimated from loud and quiet frames."""
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs, each with its own --help."""
    verbs = parser.add_subparsers(dest="verb", metavar="validate", required=True)
    summary = "find what is broken or odd in data sets"
    validate_ = add_verb(verbs, "validate", _run_validate, summary, description=_VALIDATE, examples=EXAMPLES)
    validate_.add_argument(
        "manifests", metavar="MANIFEST", nargs="+", help="JSON lines, or a Kaldi directory"
    )
    validate_.add_argument("--html", metavar="FILE", help="also write a page with histograms")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the verb gives."""
    document: dict[str, Any] = args.run_verb(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The sets, then the findings with their first cases."""
    print_table(set_rows(document["sets"]))
    for f in document["findings"]:
        print(f"{f['severity']}  {f['manifest']}: {f['check']} × {f['count']}: {f['message']}")
        for case in f["cases"][:_SHOWN]:
            print(f"          {case['utterance']}: {case['detail']}")


def check(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Raises CheckFailed when something is broken."""
    if document.get("broken"):
        raise CheckFailed(f"{document['broken']} utterances are broken; repair or remove them")


def _run_validate(args: argparse.Namespace) -> dict[str, Any]:
    check_page(args.html)
    validation = validate(list(dict.fromkeys(args.manifests)), args.quiet)
    if args.html:
        write_page(args.html, render(validation))
    return validation.document()
