"""edge-speech bench"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from edge_speech import backends
from edge_speech.bench import Request, measure
from edge_speech.bench_page import render, table_rows
from edge_speech.bundle import Artifact, Bundle, read_bundle
from edge_speech.commands.decoding import add_decoding, decoder_options, load_bundle
from edge_speech.commands.table import print_table
from edge_speech.decoder import bundle_decoder, describe
from edge_speech.errors import FellBack, InputError
from edge_speech.page import check_page, write_page
from edge_speech.progress import track
from edge_speech.recognizer import choose_artifact

SUMMARY = "latency, RTF and memory of a bundle on this machine"
EXAMPLES = (
    "edge-speech bench bundle\n"
    "edge-speech bench bundle --backend all --html bench.html\n"
    "edge-speech bench bundle --audio long.wav --realtime --json\n"
    "edge-speech bench bundle --greedy"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, the audio, and how it is fed."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument(
        "--audio", metavar="PATH", help="recording to time (default: the bundle's own, repeated)"
    )
    parser.add_argument(
        "--backend",
        metavar="NAME|all",
        default="auto",
        help="engine; all: every artifact in every engine that runs it here",
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    parser.add_argument("--realtime", action="store_true", help="feed the audio at the pace it was spoken")
    parser.add_argument("--html", metavar="FILE", help="also write a page with latency histograms")
    add_decoding(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each artifact in a process of its own."""
    check_page(args.html)
    bundle = read_bundle(args.bundle)
    chosen, further = _runnable(bundle) if args.backend == "all" else ([_chosen(args, bundle)], [])
    options = decoder_options(args)
    decoder = describe(options.over(bundle_decoder(bundle)))
    common = args.threads, args.audio, args.realtime, options
    measurements = []
    for artifact in track([*chosen, *further], "bench", args.quiet):
        try:
            measurements.append(measure(Request(args.bundle, artifact.path, artifact.backend, *common)))
        except InputError as error:
            if artifact in chosen:
                raise
            warnings.warn(f"{error}; left out", FellBack, stacklevel=2)
    if args.html:
        write_page(args.html, render(f"Edge Speech bench: {args.bundle}", measurements))
    return {"results": [m.result for m in measurements], "decoder": decoder}


def _chosen(args: argparse.Namespace, bundle: Bundle) -> Artifact:
    """What every other command would run."""
    if args.backend != "auto":
        return choose_artifact(bundle, args.backend)
    artifact = load_bundle(args).artifact
    assert artifact is not None
    return artifact


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """One line per artifact."""
    print_table(table_rows(document["results"]), left=(0, 1))


def _runnable(bundle: Bundle) -> tuple[list[Artifact], list[Artifact]]:
    """In the engines they were made for, and in others, which need not read them."""
    artifacts = bundle.manifest.artifacts
    there = [a for a in artifacts if a.status != "planned" or backends.has_engine(bundle, a)]
    found = [a for a in there if not backends.missing(a.backend)]
    further = [a for a in backends.others(there, on_request=True) if not backends.missing(a.backend)]
    return found or [choose_artifact(bundle)], [a for a in further if a.status != "planned"]
