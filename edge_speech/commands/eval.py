"""edge-speech eval"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edge_speech.bundle_manifest import GREEDY
from edge_speech.commands.decoding import add_decoding, load_recognizer
from edge_speech.decoder import describe, in_words
from edge_speech.errors import InputError
from edge_speech.evaluation import evaluate
from edge_speech.manifest import read_manifest

SUMMARY = "word and character error rates of a bundle over a data manifest"
EXAMPLES = (
    "edge-speech eval bundle test.jsonl\n"
    "edge-speech eval bundle test.jsonl --limit 100 --details\n"
    "edge-speech eval bundle test.jsonl --lm lm.bin --lm-weight 0.5\n"
    "edge-speech eval bundle test.jsonl --greedy --json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, the manifest, and how much of it."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument(
        "manifest", metavar="MANIFEST", help='JSON lines: {"audio_filepath", "text", …}; or a Kaldi directory'
    )
    parser.add_argument(
        "--backend", metavar="NAME", default="auto", help="engine (default: the bundle's best)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N utterances")
    parser.add_argument("--details", action="store_true", help="also every text beside what was heard")
    add_decoding(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Decode and score."""
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; allowed: 1 or more")
    utterances = read_manifest(args.manifest)[: args.limit]
    recognizer = load_recognizer(args)
    assert recognizer.artifact is not None
    scores, decoded = evaluate(recognizer, utterances, args.quiet)
    document = {key: round(value, 5) for key, value in asdict(scores).items()}
    document |= {"backend": recognizer.artifact.backend, "precision": recognizer.artifact.precision}
    document["decoder"] = describe(recognizer.decoder)
    return document | ({"details": [asdict(d) for d in decoded]} if args.details else {})


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The texts, when asked for, then the rates."""
    for line in document.get("details", []):
        print(f"{line['audio_filepath']}\n  said   {line['text']}\n  heard  {line['hypothesis']}")
    d, decoder = document, document["decoder"]
    search = "" if decoder["type"] == GREEDY else f", {in_words(decoder)}"
    print(
        f"WER {d['wer']:.2f} %  CER {d['cer']:.2f} %  {d['utterances']} utterances, {d['words']} words, "
        f"{d['audio_s']:.1f} s, RTF {d['rtf']:.4f}  ({d['backend']} {d['precision']}{search})"
    )
