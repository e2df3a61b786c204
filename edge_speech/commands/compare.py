"""edge-speech compare"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edge_speech.comparison import compare, read_details
from edge_speech.errors import InputError

SUMMARY = "which of two evaluations of one manifest is better, and how sure that is"
EXAMPLES = (
    "edge-speech eval a test.jsonl --json --details > a.json\n"
    "edge-speech eval b test.jsonl --json --details > b.json\n"
    "edge-speech compare a.json b.json\n"
    "edge-speech compare a.json b.json --changes 50 --json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two evaluations, and how many utterances to show."""
    parser.add_argument("a", metavar="A.json", help="of `edge-speech eval … --json --details`")
    parser.add_argument("b", metavar="B.json", help="the same, of another bundle or decoder")
    parser.add_argument(
        "--changes", metavar="N", type=int, default=10, help="utterances that changed most (default: 10)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare."""
    if args.changes < 0:
        raise InputError(f"--changes is {args.changes}; allowed: 0 or more")
    document = asdict(compare(read_details(args.a), read_details(args.b)))
    changes = document.pop("changes")
    rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in document.items()}
    return (
        {"a": args.a, "b": args.b} | rounded | {"changed": len(changes), "changes": changes[: args.changes]}
    )


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The utterances that changed most, then the rates."""
    for c in document["changes"]:
        print(f"{c['audio_filepath']}\n  said      {c['text']}")
        for name in "ab":
            print(f"  {name.upper()} heard   {c[f'hypothesis_{name}']}  ({c[f'errors_{name}']} errors)")
    d, (low, high) = document, document["difference_ci95"]
    print(
        f"{d['utterances']} utterances, {d['words']} words, {d['changed']} with another number of errors\n"
        f"A WER {d['wer_a']:.2f} %  {d['a']}\nB WER {d['wer_b']:.2f} %  {d['b']}\n"
        f"B - A {d['difference']:+.2f} points, 95 % interval {low:+.2f} … {high:+.2f}, p {d['p_value']:.3f}; "
        f"B is better on {d['b_better']:.1%} of the resampled sets"
    )
