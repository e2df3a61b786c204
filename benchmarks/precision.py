"""Time per chunk and size of every artifact of the shipped architecture's sizes, as JSON.

    python benchmarks/precision.py [--target NAME] [-o FILE]

Untrained weights: time and size do not depend on them, accuracy is not measured here. One thread, 20 s of
synthetic audio, medians of interleaved rounds, as `edge-speech optimize` measures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edge_speech.features import FbankConfig
from edge_speech.target import load_target
from edge_speech.training.models import conformer
from edge_speech_tools.decoding import Line
from edge_speech_tools.latency import measure_latency
from edge_speech_tools.passes import Source, load_passes
from edge_speech_tools.progress import Progress
from edge_speech_tools.provenance import describe_tools, host
from edge_speech_tools.recordings import at_rate, features_of, synthetic
from edge_speech_tools.reference import single_thread

TOKENS = ["<blk>", *(f"▁{i}" for i in range(499))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="linux-x86_64", help="whose artifacts to measure")
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON besides printing it")
    args = parser.parse_args()
    with single_thread():
        sizes = {name: measure(config, args.target) for name, config in conformer.SIZES.items()}
    document = {"host": host(), "tools": describe_tools(), "target": args.target, "sizes": sizes}
    text = json.dumps(document, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


def measure(config: conformer.Config, target: str) -> dict[str, Any]:
    """Build every artifact the target asks for of one size and time them against each other."""
    torch.manual_seed(0)
    model = conformer.build(replace(config, vocab_size=len(TOKENS))).eval()
    frontend = FbankConfig()
    audio = synthetic(frontend.sample_rate).recordings
    features = tuple(features_of(at_rate(r, frontend.sample_rate), frontend) for r in audio)
    wanted = load_target(target)
    chosen = [
        p for p in load_passes().values() if p.BACKEND in wanted.backends and p.PRECISION in wanted.precisions
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = Source(model, model.spec, Path(folder), features, wanted.recipe)
        results = [p.run(source) for p in sorted(chosen, key=lambda p: len(p.NEEDS))]
        timed = [r for r in results if r.check_backend == r.backend]
        latency = measure_latency(Line(frontend, TOKENS), model.spec, timed, audio, Progress())
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "results": list(latency.values())}


if __name__ == "__main__":
    main()
