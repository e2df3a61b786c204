"""edge-speech keywords"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from edge_speech.commands.decoding import load_bundle
from edge_speech.commands.extras import import_extra
from edge_speech.commands.table import print_table
from edge_speech.errors import InputError
from edge_speech.keywords import Detection, Spotted, detections, keywords_of, places, spot, trade_off
from edge_speech.lm.output import check_output
from edge_speech.manifest import read_manifest
from edge_speech.utterance import Utterance

SUMMARY = "missed keywords of a bundle at a rate of false accepts in other speech"
EXAMPLES = (
    "edge-speech keywords bundle keywords.jsonl --negatives speech.jsonl\n"
    "edge-speech keywords bundle keywords.jsonl --negatives a.jsonl b.jsonl --false-accepts-per-hour 0.5\n"
    "edge-speech keywords bundle keywords.jsonl --negatives speech.jsonl --plot curve.png --json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, recordings with keywords and without, and the rate."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file; each token is a keyword")
    parser.add_argument("manifest", metavar="MANIFEST", help="recordings of one keyword each, its text")
    parser.add_argument(
        "--negatives", metavar="MANIFEST", nargs="+", required=True, help="recordings without any of them"
    )
    parser.add_argument(
        "--false-accepts-per-hour", metavar="X", type=float, default=1.0, help="the rate (default: 1)"
    )
    parser.add_argument(
        "--refractory-s",
        metavar="S",
        type=float,
        default=1.0,
        help="a keyword fires once in so many seconds (default: 1)",
    )
    parser.add_argument(
        "--backend", metavar="NAME", default="auto", help="engine (default: the fastest here)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    parser.add_argument("--plot", metavar="PNG", help="also draw misses over false accepts")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Spot in both sets and set the thresholds."""
    for name in ("false_accepts_per_hour", "refractory_s"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name.replace('_', '-')} is {value}; allowed: 0 or more")
    plot = None
    if args.plot is not None:
        check_output(args.plot, force=True)
        plot = import_extra("edge_speech.keywords_plot", "train").plot
    recognizer = load_bundle(args)
    keywords, said = keywords_of(recognizer), read_manifest(args.manifest)
    places(keywords, [u.text for u in said])
    other = _negatives(args.negatives, keywords)
    positive, negative = (spot(recognizer, part, args.refractory_s, args.quiet) for part in (said, other))
    found = detections(keywords, positive, negative, args.false_accepts_per_hour)
    if plot is not None:
        plot(trade_off(keywords, positive, negative), args.false_accepts_per_hour, args.plot)
    assert recognizer.artifact is not None
    return {
        "keywords": [_plain(one) for one in found],
        "false_accepts_per_hour": args.false_accepts_per_hour,
        "refractory_s": args.refractory_s,
        "negatives": len(other),
        "negative_hours": round(negative.audio_s / 3600, 4),
        "decoded": _decoded(positive, negative),
        "backend": recognizer.artifact.backend,
        "precision": recognizer.artifact.precision,
    }


def _negatives(manifests: list[str], keywords: list[str]) -> list[Utterance]:
    """All recordings. Raises InputError on one whose text has a keyword."""
    utterances = [u for manifest in manifests for u in read_manifest(manifest, need_text=False)]
    for u in utterances:
        if had := [k for k in keywords if f" {k} " in f" {u.text} "]:
            raise InputError(f"{u.name} says {had[0]!r}, so it is no negative; leave it out of the manifest")
    return utterances


def _plain(one: Detection) -> dict[str, Any]:
    point = one.point
    return {
        "keyword": one.keyword,
        "recordings": one.count,
        "threshold": round(float(np.exp(-np.logaddexp(0, -point.threshold))), 9),
        "false_rejects": round(100 * point.false_reject_rate, 2),
        "false_accepts_per_hour": round(point.false_accepts_per_hour, 4),
        "confused": round(100 * one.confused, 2),
    }


def _decoded(said: Spotted, other: Spotted) -> dict[str, float]:
    """What the bundle's own decoder makes of both sets, without a threshold."""
    wrong = sum(heard != (text,) for heard, text in zip(said.decoded, said.texts, strict=True))
    accepts = sum(map(len, other.decoded))
    return {
        "wrong": round(100 * wrong / len(said.texts), 2),
        "false_accepts_per_hour": round(3600 * accepts / other.audio_s, 4),
    }


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """A line per keyword and one for all with one threshold, then what was measured."""
    header = ["keyword", "recordings", "threshold", "missed %", "false accepts/h", "others' recordings %"]
    rows = [
        [
            d["keyword"],
            str(d["recordings"]),
            f"{d['threshold']:.6f}",
            f"{d['false_rejects']:.2f}",
            f"{d['false_accepts_per_hour']:.2f}",
            f"{d['confused']:.2f}",
        ]
        for d in document["keywords"]
    ]
    print_table([header, *rows])
    decoded = document["decoded"]
    print(
        f"as decoded, without a threshold: {decoded['wrong']:.2f} % of the recordings wrong, "
        f"{decoded['false_accepts_per_hour']:.2f} false accepts an hour\n"
        f"{document['negatives']} negatives, {document['negative_hours']:.2f} h, at most "
        f"{document['false_accepts_per_hour']:g} false accepts an hour  "
        f"({document['backend']} {document['precision']})"
    )
