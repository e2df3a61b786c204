"""An n-gram model's making, size and speed, beside KenLM, as JSON; benchmarks/fusion.py has its worth.

    python benchmarks/lm.py TEXT [--held-out 1000] [--order 4] [--prune 0 0 1 1] [-o FILE]
        [--build-binary PROGRAM]

TEXT has one sentence a line, plain or .gz; its last lines are held out. Reported are the time to train, the
size of the compiled model, the time to load it, the perplexity on the held-out lines, the time per score for
sentences given as text from Python, and how far any prefix of one is from KenLM's score (natural logarithm).
Beside it, where it is installed, KenLM; with --build-binary (a program that kenlm's wheel does not have) also
its "probing" and "trie" files, their sizes and the time until ours and KenLM have loaded them.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_speech.lm.model import NgramLm
from edge_speech.lm.perplexity import perplexity
from edge_speech.lm.text import read_sentences
from edge_speech.lm.train import TrainConfig, train
from edge_speech_tools.provenance import host

RUNS = 21


def measure(args: argparse.Namespace) -> dict[str, Any]:
    sentences = list(read_sentences(args.text))
    known, held_out = sentences[: -args.held_out], sentences[-args.held_out :]
    config = TrainConfig(args.order, tuple(args.prune))
    with tempfile.TemporaryDirectory() as folder:
        model = measure_model(Path(folder), known, held_out, config)
        if args.build_binary:
            model["kenlm_files"] = kenlm_files(Path(folder), args.build_binary, held_out)
    return {
        "train": asdict(config),
        "model": model,
        "machine": {**host(), "python": platform.python_version(), "numpy": version("numpy")},
    }


def measure_model(
    folder: Path, known: list[list[str]], held_out: list[list[str]], config: TrainConfig
) -> dict[str, Any]:
    text, arpa, compiled = folder / "text", folder / "lm.arpa", folder / "lm.bin"
    text.write_text("".join(" ".join(words) + "\n" for words in known), encoding="utf-8")
    train_s, document = timed(lambda: train(text, arpa, config))
    compiled.write_bytes(NgramLm.load(arpa).core.image().data)
    load_s, lm = timed(lambda: NgramLm.load(compiled))
    return {
        "ngrams": document["ngrams"],
        "train_s": round(train_s, 2),
        "arpa_bytes": arpa.stat().st_size,
        "compiled_bytes": compiled.stat().st_size,
        "compiled_bytes_per_ngram": round(compiled.stat().st_size / sum(document["ngrams"]), 1),
        "load_ms": round(1000 * load_s, 1),
        "held_out": {k: round(v, 2) for k, v in asdict(perplexity(lm, held_out)).items()},
        **beside_kenlm(lm, arpa, [" ".join(words) for words in held_out]),
    }


def kenlm_files(folder: Path, build_binary: Path, held_out: list[list[str]]) -> dict[str, Any]:
    """Both kinds that ours reads; scoring is timed where both hold the model in memory."""
    import kenlm

    lines, results = [" ".join(words) for words in held_out], {}
    ngrams = sum(NgramLm.load(folder / "lm.bin").counts)
    for kind in ("probing", "trie"):
        path = folder / f"{kind}.bin"
        subprocess.run([build_binary, kind, folder / "lm.arpa", path], check=True, capture_output=True)
        load_s, lm = timed(lambda path=path: NgramLm.load(path))
        kenlm_load_s, peer = timed(lambda path=path: kenlm.Model(str(path)))
        results[kind] = {
            "bytes": path.stat().st_size,
            "bytes_per_ngram": round(path.stat().st_size / ngrams, 1),
            "load_ms": round(1000 * load_s, 1),
            "kenlm_load_ms": round(1000 * kenlm_load_s, 1),
            **score_times(lm, peer, lines),
        }
    return results


def beside_kenlm(lm: NgramLm, arpa: Path, lines: list[str]) -> dict[str, Any]:
    try:
        import kenlm
    except ImportError:
        return {"kenlm": None}
    peer = kenlm.Model(str(arpa))
    return {
        **score_times(lm, peer, lines),
        "largest_difference": max(farthest_prefix(lm, peer, line) for line in lines),
    }


def score_times(lm: NgramLm, peer: Any, lines: list[str]) -> dict[str, Any]:
    """Medians of runs that take turns."""
    runs = [[timed(lambda m=m: list(map(m.score, lines)))[0] for m in (lm, peer)] for _ in range(RUNS)]
    scores = sum(len(line.split()) + 1 for line in lines)
    ours, theirs = (round(median(times) / scores * 1e9) for times in zip(*runs, strict=True))
    return {"ns_per_score": ours, "kenlm_ns_per_score": theirs}


def farthest_prefix(lm: NgramLm, peer: Any, line: str) -> float:
    theirs = np.cumsum([score for score, _, _ in peer.full_scores(line)]) * math.log(10)
    return float(np.abs(np.cumsum(lm.log_probs(line)) - theirs).max())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("text", type=Path, help="one sentence a line, plain or .gz")
    parser.add_argument("--held-out", type=int, default=1000, help="last lines not trained on")
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--prune", type=int, nargs="+", default=[0])
    parser.add_argument("--build-binary", type=Path, help="KenLM's program of that name")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    text = json.dumps(measure(args), indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
