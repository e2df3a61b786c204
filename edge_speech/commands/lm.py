"""edge-speech lm"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_speech.commands import lm_tune
from edge_speech.commands.verbs import add_verb
from edge_speech.errors import InputError
from edge_speech.lm.model import NgramLm
from edge_speech.lm.output import check_output, replaced
from edge_speech.lm.perplexity import perplexity
from edge_speech.lm.text import read_sentences
from edge_speech.lm.train import TrainConfig, train

SUMMARY = "n-gram language models: estimate from text, compile for devices, measure, tune"
EXAMPLES = (
    "edge-speech lm train text.txt.gz -o lm.arpa --order 4 --prune 0 0 1 1 --eval heldout.txt\n"
    "edge-speech lm compile lm.arpa -o lm.bin\n"
    "edge-speech lm perplexity lm.bin heldout.txt --json\n"
    "edge-speech lm tune bundle dev.jsonl --lm lm.bin --plot wer.png"
)
_TRAIN = """\
Estimate an n-gram model from text: UTF-8, one sentence a line, plain or .gz, words between spaces, spelled as
the recogniser's tokens spell them. Interpolated modified Kneser-Ney with three discounts per order (Chen and
Goodman, 1998). The text is read twice and never held; memory grows with the number of different n-grams (some
150 bytes for each of the highest order), not with the text."""
_COMPILE = """\
Turn an ARPA file (ours, or KenLM's, SRILM's; plain or .gz) or a file of KenLM's build_binary ("probing", or
"trie" without quantisation) into one file that is checked and mapped when it is loaded."""
_PERPLEXITY = """\
Perplexity of a model on a text: lower is better; two models compare only when they have the same words.
Words that the model does not have are counted as oov_words and left out of `perplexity`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Four verbs, each with its own --help."""
    verbs = parser.add_subparsers(dest="verb", metavar="train|compile|perplexity|tune", required=True)
    _add_train(_verb(verbs, "train", _run_train, "estimate a model from text", _TRAIN))
    compile_ = _verb(verbs, "compile", _run_compile, "make an ARPA or KenLM file fit for devices", _COMPILE)
    compile_.add_argument("lm", metavar="IN", help="the model: ARPA, plain or .gz, or KenLM's binary file")
    _add_output(compile_, "file to write, customarily lm.bin")
    perplexity_ = _verb(verbs, "perplexity", _run_perplexity, "measure a model on a text", _PERPLEXITY)
    perplexity_.add_argument("lm", metavar="LM", help="compiled, ARPA (plain or .gz) or KenLM's binary file")
    perplexity_.add_argument("text", metavar="TEXT", help="one sentence a line, plain or .gz")
    lm_tune.add_arguments(_verb(verbs, "tune", lm_tune.run, lm_tune.SUMMARY, lm_tune.DESCRIPTION))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the verb gives."""
    document: dict[str, Any] = args.run_verb(args)
    return document


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """One line for what was made, one for the perplexity; of a tuning its table."""
    if args.verb == "tune":
        lm_tune.show(document)
        return
    if "path" in document:
        counts = ", ".join(f"{count} {n}-grams" for n, count in enumerate(document["ngrams"], start=1))
        print(f"{document['path']}  {counts}")
    measured = document.get("eval") if "path" in document else document
    if measured:
        print(
            f"perplexity {measured['perplexity']:.2f}  {measured['sentences']} sentences, "
            f"{measured['words']} words, {measured['oov_words']} not in the model "
            f"(with them {measured['perplexity_with_oov']:.2f})"
        )


def _verb(
    verbs: argparse._SubParsersAction[Any],
    name: str,
    run_verb: Callable[[argparse.Namespace], dict[str, Any]],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    return add_verb(verbs, name, run_verb, summary, description=description, examples=EXAMPLES)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="one sentence a line, plain or .gz")
    _add_output(parser, "ARPA file to write; packed when it ends in .gz")
    parser.add_argument(
        "--order", metavar="N", type=int, default=4, help="longest n-grams, 1 to 6 (default: 4)"
    )
    parser.add_argument(
        "--prune",
        metavar="COUNT",
        type=int,
        nargs="+",
        default=[0],
        help="per order, drop n-grams that occur at most so often, such as 0 0 1 1 (default: keep all)",
    )
    parser.add_argument(
        "--vocab-limit", metavar="N", type=int, help="keep the N most frequent words; others count as <unk>"
    )
    parser.add_argument("--eval", metavar="TEXT", help="held-out text to report the perplexity of")


def _add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=what)
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def _run_train(args: argparse.Namespace) -> dict[str, Any]:
    config = TrainConfig(args.order, tuple(args.prune), args.vocab_limit)
    check_output(args.output, args.force)
    if args.eval is not None and not Path(args.eval).is_file():
        raise InputError(f"--eval {args.eval}: no such text file; give UTF-8 text, one sentence a line")
    document = train(args.text, args.output, config, args.quiet)
    return document | {"eval": args.eval and _perplexity(args.output, args.eval, args.quiet)}


def _run_compile(args: argparse.Namespace) -> dict[str, Any]:
    check_output(args.output, args.force)
    lm = NgramLm.load(args.lm)
    with replaced(args.output) as part:
        part.write_bytes(lm.core.image().data)
    return {"path": args.output, "ngrams": list(lm.counts), "bytes": Path(args.output).stat().st_size}


def _run_perplexity(args: argparse.Namespace) -> dict[str, Any]:
    return _perplexity(args.lm, args.text, args.quiet)


def _perplexity(lm: str, text: str, quiet: bool) -> dict[str, Any]:
    result = perplexity(NgramLm.load(lm), read_sentences(text, "perplexity", quiet))
    return {key: round(value, 4) for key, value in asdict(result).items()}
