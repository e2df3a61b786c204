"""Microseconds per row of CTC prefix beam search, ours beside flashlight-text, as JSON and a picture.

    python benchmarks/decoder.py [-o FILE] [--peers FOLDER]

Peaky log_probs as a trained model gives them: most rows are blank, a token every six rows lasts one or two
rows and often has a rival. T = 1500 rows, V = 32 and 500, beam 8 and 32, one thread, called from Python. Both
searches have the same limits: 32 tokens per row, 20 nats below the best hypothesis; no language model. The
figures are medians of several runs, taken in turns so that a busy moment strikes all alike.

`ln_p` is the sum over all alignments of the text that each search found, by the CTC forward algorithm: more
is better. The two may differ because flashlight ranks the alignments of one text that end in a blank and
those that do not as if they were two texts.

FOLDER is where `pip install --target FOLDER flashlight-text==0.0.7` put the peer; a peer that is not there is
left out and named in the output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.encoder import FloatArray
from edge_speech_tools.provenance import host

ROWS, RUNS, PIECE = 1500, 9, 4
SIZES = [(32, 8), (32, 32), (500, 8), (500, 32)]
TOKENS_PER_ROW, BEAM_THRESHOLD = 32, 20.0
Search = Callable[[], list[int]]


def peaky_log_probs(rows: int, vocab: int) -> FloatArray:
    """(rows, vocab): blank, and tokens with rivals."""
    rng = np.random.default_rng(vocab)
    logits = rng.normal(0, 1, (rows, vocab)).astype(np.float32)
    logits[:, 0] += 8
    for row in range(3, rows - 3, 6):
        logits[row : row + rng.integers(1, 3), rng.integers(1, vocab)] += rng.uniform(9, 16)
        logits[row, rng.integers(1, vocab)] += rng.uniform(4, 14)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def ours(log_probs: FloatArray, beam_size: int, piece: int = ROWS) -> Search:
    tokens = [str(i) for i in range(log_probs.shape[1])]
    config = CtcConfig(beam_size, beam_threshold=BEAM_THRESHOLD, tokens_per_row=TOKENS_PER_ROW)
    decoder = CtcPrefixBeam(tokens, config)
    return _stepped(decoder, log_probs, piece)


def greedy(log_probs: FloatArray) -> Search:
    return _stepped(CtcGreedy([str(i) for i in range(log_probs.shape[1])]), log_probs, ROWS)


def _stepped(decoder: CtcPrefixBeam | CtcGreedy, log_probs: FloatArray, piece: int) -> Search:
    pieces = [log_probs[i : i + piece] for i in range(0, len(log_probs), piece)]

    def run() -> list[int]:
        decoder.reset()
        for rows in pieces:
            decoder.step(rows)
        return [int(t.token) for t in decoder.finish().tokens]

    return run


def flashlight(log_probs: FloatArray, beam_size: int) -> Search:
    from flashlight.lib.text import decoder as fl

    options = fl.LexiconFreeDecoderOptions(
        beam_size=beam_size,
        beam_size_token=TOKENS_PER_ROW,
        beam_threshold=BEAM_THRESHOLD,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconFreeDecoder(options, fl.ZeroLM(), -1, 0, [])

    def run() -> list[int]:
        path = decoder.decode(log_probs.ctypes.data, *log_probs.shape)[0].tokens[1:-1]
        return [symbol for symbol, _ in itertools.groupby(path) if symbol != 0]

    return run


def contenders(vocab: int, beam_size: int, with_flashlight: bool) -> dict[str, Search]:
    log_probs = peaky_log_probs(ROWS, vocab)
    found = {
        "ours": ours(log_probs, beam_size),
        f"ours_{PIECE}_rows_a_step": ours(log_probs, beam_size, PIECE),
        "ours_greedy": greedy(log_probs),
    }
    return found | ({"flashlight": flashlight(log_probs, beam_size)} if with_flashlight else {})


def microseconds_per_row(search: Search) -> float:
    start = time.perf_counter()
    search()
    return (time.perf_counter() - start) / ROWS * 1e6


def measure_size(vocab: int, beam_size: int, with_flashlight: bool) -> dict[str, Any]:
    searches = contenders(vocab, beam_size, with_flashlight)
    texts = {name: search() for name, search in searches.items()}
    runs = [[microseconds_per_row(search) for search in searches.values()] for _ in range(RUNS)]
    figures = {name: round(median(c), 2) for name, c in zip(searches, zip(*runs, strict=True), strict=True)}
    ln_p = {name: round(forward(peaky_log_probs(ROWS, vocab), text), 3) for name, text in texts.items()}
    return {"vocab_size": vocab, "beam_size": beam_size, "us_per_row": figures, "ln_p": ln_p}


def forward(log_probs: FloatArray, sequence: list[int]) -> float:
    """ln p(sequence), Graves et al., ICML 2006, section 4.1: over blank, s1, blank, s2, …, blank."""
    states = np.zeros(2 * len(sequence) + 1, np.int64)
    states[1::2] = sequence
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != 0) & (states[2:] != states[:-2])
    mass = np.full(len(states), -np.inf)
    mass[0] = 0.0
    for row in log_probs.astype(np.float64):
        one = np.concatenate([[-np.inf], mass[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf, -np.inf], mass[:-2]])[: len(states)], -np.inf)
        mass = np.logaddexp(np.logaddexp(mass, one), two) + row[states]
    return float(np.logaddexp(mass[-1], mass[-2])) if sequence else float(mass[-1])


def measure(with_flashlight: bool) -> dict[str, Any]:
    return {
        "results": [measure_size(vocab, beam_size, with_flashlight) for vocab, beam_size in SIZES],
        "rows": ROWS,
        "runs": RUNS,
        "tokens_per_row": TOKENS_PER_ROW,
        "beam_threshold": BEAM_THRESHOLD,
        "peers_missing": [] if with_flashlight else ["flashlight-text"],
        "machine": {**host(), "python": platform.python_version(), "numpy": version("numpy")}
        | ({"flashlight-text": version("flashlight-text")} if with_flashlight else {}),
    }


def has_flashlight() -> bool:
    try:
        import flashlight.lib.text.decoder  # noqa: F401
    except ImportError:
        return False
    return True


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of microseconds per row, ours and theirs, by size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, result in zip(figure.subplots(2, 2).flat, results, strict=True):
        figures = result["us_per_row"]
        names = [name.replace("_", " ") for name in figures]
        colours = ["tab:green" if name.startswith("ours") else "tab:gray" for name in figures]
        axes.bar_label(axes.barh(names, list(figures.values()), color=colours), fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(f"{result['vocab_size']} symbols, beam {result['beam_size']}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("microseconds a row, from Python, one core")
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well, and a picture")
    parser.add_argument("--peers", type=Path, help="folder that flashlight-text was installed into")
    args = parser.parse_args()
    if args.peers:
        sys.path.append(str(args.peers))
    measured = measure(has_flashlight())
    text = json.dumps(measured, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")
        draw(measured["results"], args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
