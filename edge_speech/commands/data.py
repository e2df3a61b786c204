"""edge-speech data"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_speech import corpora
from edge_speech.commands import data_pinyin, data_segment
from edge_speech.commands.table import print_table
from edge_speech.commands.verbs import add_verb
from edge_speech.errors import CheckFailed
from edge_speech.page import check_page, write_page
from edge_speech.prepare import prepare
from edge_speech.validation.html import render
from edge_speech.validation.report import set_rows, validate

SUMMARY = "data sets: manifests of known corpora, checks before training"
EXAMPLES = (
    "edge-speech data validate train.jsonl dev.jsonl test.jsonl --html data.html\n"
    "edge-speech data validate kaldi/data/train --json\n"
    "edge-speech data prepare librispeech /corpora/LibriSpeech -o data/librispeech\n"
    "edge-speech data segment lecture.wav -o lecture.jsonl --max-s 15\n"
    "edge-speech data pinyin aishell/train.jsonl -o pinyin/train.jsonl"
)
_VALIDATE = """\
Read every recording and text of the manifests (any form that training takes) and tell what is broken:
missing, unreadable, empty (exit code 1); and what deserves a look: sample rates, odd characters, outliers in
length and speaking rate, clipping, silence, DC offset, noise, and what two manifests have in common: audio,
texts, speakers. The SNR is estimated from loud and quiet frames."""
_PREPARE = """\
Read a corpus as it is unpacked and write a manifest for each official split: texts in lower case without
punctuation, durations from the files' headers. What is incomplete is named and nothing is written. Splits
that were not downloaded are left out and listed. Archives that still lie there are compared with their
published checksums (LibriSpeech, Speech Commands, LJ Speech)."""
_SHOWN = 3
# Verbs with a file of their own.
_IN_FILES = {"segment": data_segment, "pinyin": data_pinyin}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs, each with its own --help."""
    verbs = parser.add_subparsers(dest="verb", metavar="validate|prepare|segment|pinyin", required=True)
    summary = "find what is broken or odd in data sets"
    validate_ = add_verb(verbs, "validate", _run_validate, summary, description=_VALIDATE, examples=EXAMPLES)
    validate_.add_argument(
        "manifests", metavar="MANIFEST", nargs="+", help="JSON lines, Kaldi directory, Lhotse cuts, Parquet"
    )
    validate_.add_argument("--html", metavar="FILE", help="also write a page with histograms")
    summary = "write manifests of a corpus in its official layout"
    prepare_ = add_verb(verbs, "prepare", _run_prepare, summary, description=_PREPARE, examples=EXAMPLES)
    known = corpora.available()
    prepare_.add_argument("corpus", metavar="CORPUS", choices=known, help=", ".join(known))
    prepare_.add_argument("folder", metavar="DIR", help="where it was unpacked")
    prepare_.add_argument("-o", "--output", metavar="OUT", required=True, help="folder of the manifests")
    prepare_.add_argument("--force", action="store_true", help="replace existing manifests")
    for name, verb in _IN_FILES.items():
        made = add_verb(verbs, name, verb.run, verb.SUMMARY, description=verb.DESCRIPTION, examples=EXAMPLES)
        verb.add_arguments(made)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the verb gives."""
    document: dict[str, Any] = args.run_verb(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The manifests written; or the sets, then the findings with their first cases."""
    if args.verb in _IN_FILES:
        _IN_FILES[args.verb].show(document)
        return
    if args.verb == "prepare":
        for split in document["splits"]:
            print(f"{split['manifest']}  {split['utterances']} utterances, {split['hours']:.2f} h")
        if document["archives"]:
            print(f"whole by their checksums: {', '.join(document['archives'])}")
        if document["absent"]:
            print(f"not in {args.folder}: {', '.join(document['absent'])}")
        return
    print_table(set_rows(document["sets"]))
    for f in document["findings"]:
        print(f"{f['severity']}  {f['manifest']}: {f['check']} × {f['count']}: {f['message']}")
        for case in f["cases"][:_SHOWN]:
            print(f"          {case['utterance']}: {case['detail']}")


def check(document: dict[str, Any], args: argparse.Namespace) -> None:
    """Raises CheckFailed when something is broken."""
    if document.get("broken"):
        every = sum(data["utterances"] for data in document["sets"])
        raise CheckFailed(f"broken utterances: {document['broken']} of {every}; repair or remove them")


def _run_prepare(args: argparse.Namespace) -> dict[str, Any]:
    return prepare(args.corpus, Path(args.folder), Path(args.output), args.force, args.quiet)


def _run_validate(args: argparse.Namespace) -> dict[str, Any]:
    check_page(args.html)
    validation = validate(list(dict.fromkeys(args.manifests)), args.quiet)
    if args.html:
        write_page(args.html, render(validation))
    return validation.document()
