"""edge-speech eval"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge_speech.breakdown import by_speaker, frequent_errors
from edge_speech.bundle_manifest import GREEDY
from edge_speech.commands.decoding import add_decoding, load_recognizer
from edge_speech.commands.extras import import_extra
from edge_speech.commands.table import print_table
from edge_speech.decoder import describe, in_words
from edge_speech.errors import InputError
from edge_speech.eval_page import render
from edge_speech.evaluation import Decoded, Heard, hear, scored
from edge_speech.group import Group, group_of_environment, joined
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.page import check_page, write_page
from edge_speech.recognizer import Recognizer
from edge_speech.text import Normalizer

SUMMARY = "word and character error rates of a bundle over a data manifest"
EXAMPLES = (
    "edge-speech eval bundle test.jsonl\n"
    "edge-speech eval bundle test.jsonl --limit 100 --details\n"
    "edge-speech eval bundle test.jsonl --per-speaker --errors 10 --html eval.html\n"
    "edge-speech eval bundle test.jsonl --normalize --language de\n"
    "edge-speech eval bundle test.jsonl --lm lm.bin --lm-weight 0.5\n"
    "edge-speech eval bundle test.jsonl --greedy --json --details > greedy.json\n"
    "torchrun --nproc-per-node 8 -m edge_speech eval bundle test.jsonl"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, the manifest, how much of it, and what to say about it."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument(
        "manifest", metavar="MANIFEST", help='JSON lines: {"audio_filepath", "text", …}; or a Kaldi directory'
    )
    parser.add_argument(
        "--backend", metavar="NAME", default="auto", help="engine (default: the fastest here)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N utterances")
    parser.add_argument(
        "--keep-going", action="store_true", help="leave out recordings that cannot be read, and say which"
    )
    parser.add_argument(
        "--normalize", action="store_true", help="score without case and punctuation, numbers in words"
    )
    parser.add_argument(
        "--language", metavar="CODE", default="en", help="of the numbers for --normalize (default: en)"
    )
    parser.add_argument("--details", action="store_true", help="also every text beside what was heard")
    parser.add_argument("--per-speaker", action="store_true", help="also the rates of each speaker")
    parser.add_argument(
        "--errors", metavar="N", type=int, help="also the N most frequent errors of each kind"
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page with every text and its errors")
    add_decoding(parser)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Decode and score. Of several processes that torchrun started each decodes its share, and all but one
    have nothing to say: None."""
    group = group_of_environment()
    if group.size == 1:
        recognizer, heard = _decode(args, group)
        return _document(args, recognizer, heard)
    distributed = import_extra("edge_speech.training.distributed", "train")
    with distributed.connected(group):
        recognizer, heard = _decode(args, group)
        heard = joined(distributed.gathered(group, heard))
        return _document(args, recognizer, heard) if group.speaks else None


def _decode(args: argparse.Namespace, group: Group) -> tuple[Recognizer, list[Heard]]:
    """This process's share of the manifest. Raises InputError."""
    utterances = list(group.share(_utterances(args)))
    normalize = Normalizer(args.language) if args.normalize else None
    recognizer = load_recognizer(args)

    def leave_out(utterance: Utterance, reason: str) -> None:
        if not args.keep_going:
            raise InputError(f"{reason}; or add --keep-going to leave out what cannot be read")
        print(f"left out: {reason}", file=sys.stderr)

    quiet = args.quiet or not group.speaks
    heard = hear(recognizer, utterances, quiet, normalize=normalize, on_unreadable=leave_out)
    return recognizer, list(heard)


def _document(args: argparse.Namespace, recognizer: Recognizer, heard: Sequence[Heard]) -> dict[str, Any]:
    scores, decoded = scored(heard)
    assert recognizer.artifact is not None
    document = {key: _rounded(value) for key, value in asdict(scores).items()}
    document |= {"backend": recognizer.artifact.backend, "precision": recognizer.artifact.precision}
    document["decoder"] = describe(recognizer.decoder)
    if args.html:
        write_page(args.html, render(f"Edge Speech eval: {args.bundle}, {args.manifest}", scores, decoded))
    failed = [
        {"audio_filepath": one.audio_filepath, "reason": one.unreadable} for one in heard if one.unreadable
    ]
    return document | ({"left_out": failed} if failed else {}) | _asked_for(args, decoded)


def _utterances(args: argparse.Namespace) -> list[Utterance]:
    """The manifest's, once everything that was given fits together. Raises InputError."""
    for name, number in (("--limit", args.limit), ("--errors", args.errors)):
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; allowed: 1 or more")
    check_page(args.html)
    utterances = read_manifest(args.manifest)[: args.limit]
    if args.per_speaker and not any("speaker" in u.extra for u in utterances):
        raise InputError(f"{args.manifest}: no line has a 'speaker', which --per-speaker needs; leave it out")
    missing = [u.audio_path for u in utterances if not u.audio_path.exists()]
    if missing and not args.keep_going:
        raise InputError(
            f"{missing[0]}: No such file ({len(missing)} of {len(utterances)} are missing); "
            f"correct {args.manifest}, or add --keep-going to leave out what cannot be read"
        )
    return utterances


def _asked_for(args: argparse.Namespace, decoded: Sequence[Decoded]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if args.per_speaker:
        speakers = [asdict(s) for s in by_speaker(decoded)]
        found["speakers"] = [{key: _rounded(value) for key, value in s.items()} for s in speakers]
    if args.errors:
        errors = frequent_errors(decoded, args.errors)
        found["errors"] = {kind: [asdict(e) for e in most] for kind, most in errors.items()}
    return found | ({"details": [asdict(d) for d in decoded]} if args.details else {})


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """The texts, the errors and the speakers, when asked for, then the rates."""
    for line in document.get("details", []):
        print(f"{line['audio_filepath']}\n  said   {line['text']}\n  heard  {line['hypothesis']}")
    for kind, errors in document.get("errors", {}).items():
        rows = [[e["said"], e["heard"], str(e["count"]), e["example"]["audio_filepath"]] for e in errors]
        if rows:
            print_table([[kind, "heard", "count", "for example"], *rows], left=(0, 1, 3))
    if "speakers" in document:
        print_table([["speaker", "utterances", "words", "WER %", "CER %"], *map(_row, document["speakers"])])
    d, decoder = document, document["decoder"]
    search = "" if decoder["type"] == GREEDY else f", {in_words(decoder)}"
    heard = f"{d['utterances']} utterances" + (f", {len(d['left_out'])} left out" if "left_out" in d else "")
    print(
        f"WER {d['wer']:.2f} %  CER {d['cer']:.2f} %  {heard}, {d['words']} words, "
        f"{d['audio_s']:.1f} s, RTF {d['rtf']:.4f}  ({d['backend']} {d['precision']}{search})"
    )


def _row(speaker: dict[str, Any]) -> list[str]:
    rates = ("-" if speaker[key] is None else f"{speaker[key]:.2f}" for key in ("wer", "cer"))
    return [speaker["speaker"] or "-", str(speaker["utterances"]), str(speaker["words"]), *rates]
