"""Word error rates of the search with an n-gram model, beside flashlight-text, as JSON and a picture.

    python benchmarks/fusion.py TEXT [--held-out 1000] [--utterances 100] [-o FILE.json]

TEXT has one sentence a line, plain or .gz; its last lines are held out, a 4-gram model is trained on the
rest, and log_probs are simulated from held-out lines (benchmarks/posteriors.py says how) at several error
rates, with characters and with 500 pieces. `wer` is in percent: greedy, beam search without a model, with the
model (words that it does not have cost unknown_score), and `closed`: with its words alone.

flashlight-text's LexiconDecoder gets the same log_probs, ARPA file, words, weights (its model counts in
log10) and limits. Both get a beam so wide that hardly anything is lost, `closed_wide` and `flashlight`.
Each word is spelled in one way there, so it is compared on characters, and no text ends with the mark of a
word's start, so of ours the best that does not is taken. Reported are its word error rate, on how many
utterances its best hypothesis is ours, and where they differ which has the better score: of all utterances,
and of those whose words are all in the model, as where one is not even such a beam loses what is best.
Microseconds of processor time are per row of log_probs, on one thread, from Python.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from posteriors import WORD_START, Simulator, character_pieces, frequent_pieces, segment

from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.encoder import FloatArray
from edge_speech.lm.model import NgramLm
from edge_speech.lm.text import read_sentences
from edge_speech.lm.train import TrainConfig, train
from edge_speech.progress import track
from edge_speech_tools.provenance import host

ERROR_RATES = (0.02, 0.05, 0.10)
PIECES, BEAM_SIZE, WIDE_BEAM_SIZE = 500, 32, 1024
TOKENS_PER_ROW, BEAM_THRESHOLD = 32, 20.0
LM_WEIGHT, WORD_BONUS = 0.5, 1.5
Heard = tuple[str, float]  # text, score
Search = Callable[[FloatArray], Heard]


def ours(pieces: Sequence[str], config: CtcConfig | None) -> Search:
    decoder = CtcPrefixBeam(list(pieces), config) if config else CtcGreedy(list(pieces))

    def run(log_probs: FloatArray) -> Heard:
        decoder.reset()
        decoder.step(log_probs)
        result = decoder.finish()
        if isinstance(decoder, CtcGreedy):
            return result.text, 0.0
        count = None if result.tokens and result.tokens[-1].token == WORD_START else 1
        best = next(h for h in decoder.n_best(count) if not (h.tokens and h.tokens[-1].token == WORD_START))
        return best.text, best.score

    return run


def config(beam_size: int, lm: NgramLm, **rest: Any) -> CtcConfig:
    return CtcConfig(
        beam_size,
        beam_threshold=BEAM_THRESHOLD,
        tokens_per_row=TOKENS_PER_ROW,
        token_threshold=math.inf,
        lm=lm,
        lm_weight=LM_WEIGHT,
        word_bonus=WORD_BONUS,
        **rest,
    )


def flashlight(pieces: Sequence[str], arpa: Path, words: Sequence[str]) -> Search:
    """One more symbol that is never said stands for its silence."""
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    dictionary = Dictionary()
    for word in (*words, "<unk>"):
        dictionary.add_entry(word)
    unknown, silence = dictionary.get_index("<unk>"), len(pieces)
    dictionary.set_default_index(unknown)
    model = KenLM(str(arpa), dictionary)
    trie, start = fl.Trie(silence + 1, silence), model.start(False)
    for i, word in enumerate(words):
        trie.insert(segment([word], pieces), i, model.score(start, i)[1])
    trie.smear(fl.SmearingMode.MAX)
    options = fl.LexiconDecoderOptions(
        beam_size=WIDE_BEAM_SIZE,
        beam_size_token=TOKENS_PER_ROW,
        beam_threshold=BEAM_THRESHOLD,
        lm_weight=LM_WEIGHT * math.log(10),
        word_score=WORD_BONUS,
        unk_score=-math.inf,
        sil_score=0.0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconDecoder(options, trie, model, silence, 0, unknown, [], False)

    def run(log_probs: FloatArray, keep: object = (dictionary, model, trie)) -> Heard:
        never = np.full((len(log_probs), 1), -1e4, np.float32)
        rows = np.ascontiguousarray(np.concatenate([log_probs, never], axis=1))
        best = decoder.decode(rows.ctypes.data, *rows.shape)[0]
        return " ".join(words[i] for i in best.words if 0 <= i < len(words)), best.score

    return run


def searches(pieces: Sequence[str], lm: NgramLm) -> dict[str, Search]:
    return {
        "greedy": ours(pieces, None),
        "beam": ours(pieces, CtcConfig(BEAM_SIZE)),
        "lm": ours(pieces, config(BEAM_SIZE, lm)),
        "lm_beam_8": ours(pieces, config(8, lm)),
        "closed": ours(pieces, config(BEAM_SIZE, lm, unknown_score=-math.inf)),
    }


def measure_rate(
    pieces: Sequence[str],
    error_rate: float,
    spoken: list[list[str]],
    found: dict[str, Search],
    lm: NgramLm,
) -> dict[str, Any]:
    simulator = Simulator(pieces, error_rate)
    rows = [simulator.log_probs(words) for words in spoken]
    said = [" ".join(words) for words in spoken]
    heard, micros = {}, {}
    for name, search in found.items():
        start = time.process_time()
        heard[name] = [
            search(r) for r in track(rows, f"{len(pieces)} symbols, {error_rate:.0%}, {name}", quiet=False)
        ]
        micros[name] = round((time.process_time() - start) / sum(map(len, rows)) * 1e6, 2)
    wer = {name: round(100 * jiwer.wer(said, [text for text, _ in h]), 2) for name, h in heard.items()}
    lowered = round(100 * (1 - wer["lm"] / wer["greedy"]), 1)
    result = {"vocab_size": len(pieces), "error_rate": error_rate, "wer": wer}
    result |= {"lm_lowers_wer_by_percent": lowered, "us_per_row": micros}
    if "flashlight" not in heard:
        return result
    pairs = list(zip(heard["closed_wide"], heard["flashlight"], strict=True))
    sayable = [pair for pair, words in zip(pairs, spoken, strict=True) if all(w in lm for w in words)]
    return result | {"flashlight": {"all": agreement(pairs), "without_oov": agreement(sayable)}}


def agreement(pairs: list[tuple[Heard, Heard]]) -> dict[str, Any]:
    differing = [(a, b) for (text, a), (other, b) in pairs if text != other]
    return {
        "utterances": len(pairs),
        "agrees_percent": round(100 * (1 - len(differing) / max(1, len(pairs))), 2),
        "differing": len(differing),
        "differing_ours_scores_higher": sum(a > b for a, b in differing),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    sentences = list(read_sentences(args.text))
    known, spoken = sentences[: -args.held_out], sentences[-args.held_out :][: args.utterances]
    characters = character_pieces(sentences)
    units = {"characters": characters}
    units["pieces"] = tuple(dict.fromkeys((*characters, *frequent_pieces(known, PIECES))))
    with tempfile.TemporaryDirectory() as folder:
        text, arpa = Path(folder, "text"), Path(folder, "lm.arpa")
        text.write_text("".join(" ".join(words) + "\n" for words in known), encoding="utf-8")
        train(text, arpa, TrainConfig(4, (0, 0, 1, 1)))
        lm = NgramLm.load(arpa)
        results = []
        for name, pieces in units.items():
            found = searches(pieces, lm)
            if name == "characters" and has_flashlight():
                closed = config(WIDE_BEAM_SIZE, lm, unknown_score=-math.inf)
                words = sorted(w for w in {w for words in known for w in words} if w in lm)
                found |= {"closed_wide": ours(pieces, closed), "flashlight": flashlight(pieces, arpa, words)}
            for rate in ERROR_RATES:
                results.append({"units": name} | measure_rate(pieces, rate, spoken, found, lm))
    words_spoken = [word for words in spoken for word in words]
    return {
        "results": results,
        "utterances": len(spoken),
        "words": len(words_spoken),
        "oov_percent": round(100 * sum(w not in lm for w in words_spoken) / len(words_spoken), 2),
        "ngrams": list(lm.counts),
        "beam_size": BEAM_SIZE,
        "wide_beam_size": WIDE_BEAM_SIZE,
        "lm_weight": LM_WEIGHT,
        "word_bonus": WORD_BONUS,
        "machine": {**host(), "python": platform.python_version(), "numpy": version("numpy")}
        | ({"flashlight-text": version("flashlight-text")} if has_flashlight() else {}),
    }


def has_flashlight() -> bool:
    try:
        import flashlight.lib.text.decoder  # noqa: F401
    except ImportError:
        return False
    return True


def draw(document: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    shown = {"greedy": "greedy", "beam": "beam 32", "lm": "beam 32 and 4-gram", "closed": "its words alone"}
    shown["flashlight"] = "flashlight, its words alone, beam 1024"
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, units in zip(figure.subplots(1, 2), ("characters", "pieces"), strict=True):
        rows = [r for r in document["results"] if r["units"] == units]
        for name, label in shown.items():
            if name in rows[0]["wer"]:
                rates = [100 * r["error_rate"] for r in rows]
                axes.plot(rates, [r["wer"][name] for r in rows], "o-", label=label)
        axes.set(title=units, xlabel="symbols wrong at first sight, %", ylabel="word error rate, %")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("text", type=Path, help="one sentence a line, plain or .gz")
    parser.add_argument("--held-out", type=int, default=1000, help="last lines not trained on")
    parser.add_argument("--utterances", type=int, default=100, help="held-out lines to simulate")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here too, and a picture beside it")
    args = parser.parse_args()
    document = measure(args)
    text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")
        draw(document, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
