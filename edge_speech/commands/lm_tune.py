"""edge-speech lm tune"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from edge_speech.commands.decoding import load_bundle
from edge_speech.commands.extras import import_extra
from edge_speech.commands.table import print_table
from edge_speech.ctc import CtcConfig
from edge_speech.decoder import changed
from edge_speech.errors import InputError
from edge_speech.lm.model import NgramLm
from edge_speech.lm.output import check_output
from edge_speech.lm.tune import LM_WEIGHTS, WORD_BONUSES, Tuning, grid_of, tune
from edge_speech.manifest import read_manifest

SUMMARY = "find the weights of a model for a bundle"
DESCRIPTION = """\
Word error rates of a bundle with a language model, for every pair of the weights given. The encoder hears
each recording once. Take recordings that are neither in the training nor in the test set."""
_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, the development set, the model, and what is tried."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument("manifest", metavar="MANIFEST", help="development set: JSON lines with texts")
    parser.add_argument("--lm", metavar="FILE", help="compiled or ARPA, plain or .gz (default: the bundle's)")
    parser.add_argument("--beam-size", metavar="N", type=int, help="hypotheses (default: the bundle's, or 8)")
    for name, values in (("--lm-weights", LM_WEIGHTS), ("--word-bonuses", WORD_BONUSES)):
        shown = " ".join(f"{value:g}" for value in values)
        what = f"values to try (default: {shown})"
        parser.add_argument(name, metavar="X", type=float, nargs="+", default=values, help=what)
    parser.add_argument(
        "--backend", metavar="NAME", default="auto", help="engine (default: the fastest here)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N utterances")
    parser.add_argument("--plot", metavar="PNG", help="also draw the error rates, replacing the file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All points, best first, and the options of the best one. Raises InputError."""
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; allowed: 1 or more")
    plot = None
    if args.plot is not None:
        check_output(args.plot, force=True)
        plot = import_extra("edge_speech.lm.tune_plot", "train").plot
    utterances = read_manifest(args.manifest)[: args.limit]
    recognizer = load_bundle(args)
    config = _config(args, recognizer.decoder)
    grid = grid_of(config, args.lm_weights, args.word_bonuses)
    found = tune(recognizer, utterances, grid, args.quiet)
    if plot is not None:
        plot(found, args.plot)
    return _document(found, config, args.lm)


def _config(args: argparse.Namespace, default: CtcConfig | None) -> CtcConfig:
    if args.beam_size == 1:
        raise InputError("--beam-size is 1, which is greedy and uses no language model; allowed: 2 or more")
    config = changed(default, args.beam_size) or CtcConfig()
    if args.lm is not None:
        config = replace(config, lm=NgramLm.load(args.lm))
    if config.lm is None:
        raise InputError(f"{args.bundle}: has no language model; give one with --lm FILE")
    return config


def _document(found: Tuning, config: CtcConfig, lm: str | None) -> dict[str, Any]:
    best = found.points[0]
    named = "" if lm is None else f"--lm {lm} "
    weights = f"--lm-weight {best.lm_weight:g} --word-bonus {best.word_bonus:g}"
    document = asdict(found) | {"points": [_rounded(asdict(point)) for point in found.points]}
    options = f"{named}{weights} --beam-size {config.beam_size}"
    return {**_rounded(document), "beam_size": config.beam_size, "options": options}


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in values.items()}


def show(document: dict[str, Any]) -> None:
    """The best few, what they are compared with, and the options to give."""
    rows = [["lm_weight", "word_bonus", "WER %", "CER %"]]
    for p in document["points"][:_SHOWN]:
        rows.append([f"{p['lm_weight']:g}", f"{p['word_bonus']:g}", f"{p['wer']:.2f}", f"{p['cer']:.2f}"])
    print_table(rows, left=())
    print(
        f"greedy WER {document['wer_greedy']:.2f} %, beam {document['beam_size']} without the model "
        f"{document['wer_beam']:.2f} %; {document['utterances']} utterances, {document['words']} words"
    )
    print(f"options  {document['options']}")
