"""The options about decoding, which every command that decodes has."""

from __future__ import annotations

import argparse
import sys

from edge_speech.bundle_manifest import LM_LEVELS
from edge_speech.decoder import DecoderOptions
from edge_speech.recognizer import Recognizer


def add_decoder_options(options: argparse._ActionsContainer) -> None:
    """--beam-size, --lm and its weights: what a bundle is made with and what a command changes in it."""
    options.add_argument(
        "--beam-size", metavar="N", type=int, help="hypotheses of the search; 1 is greedy, no language model"
    )
    options.add_argument("--lm", metavar="FILE", help="language model, compiled or ARPA, plain or .gz")
    options.add_argument(
        "--lm-level",
        choices=LM_LEVELS,
        help="its words are words (default), or tokens of the vocabulary",
    )
    options.add_argument("--lm-weight", metavar="X", type=float, help="weight of ln p of each word (0.5)")
    options.add_argument("--word-bonus", metavar="X", type=float, help="nats for each word (0)")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """The same for a command that has a bundle, whose decoder is the default; and --greedy, --hotwords."""
    options = parser.add_argument_group("decoding, as the bundle says unless changed")
    add_decoder_options(options)
    options.add_argument(
        "--greedy", action="store_const", const=1, dest="beam_size", help="the same as --beam-size 1"
    )
    options.add_argument(
        "--hotwords", metavar="FILE", help="phrases to prefer: one per line, optional tab and boost"
    )


def decoder_options(args: argparse.Namespace) -> DecoderOptions:
    """What was given."""
    hotwords = getattr(args, "hotwords", None)
    return DecoderOptions(args.beam_size, args.lm, args.lm_level, args.lm_weight, args.word_bonus, hotwords)


def load_recognizer(args: argparse.Namespace) -> Recognizer:
    """The bundle with its decoder changed as asked for. Raises InputError."""
    recognizer = load_bundle(args)
    recognizer.decoder = decoder_options(args).over(recognizer.decoder)
    return recognizer


def load_bundle(args: argparse.Namespace) -> Recognizer:
    """The bundle, and a line about which of its artifacts runs where that was measured just now."""
    recognizer = Recognizer.load(args.bundle, args.backend, args.threads)
    found = recognizer.selection
    if found is not None and found.is_new and found.was_a_choice and not args.quiet:
        print(found.in_words(), file=sys.stderr)
    return recognizer
