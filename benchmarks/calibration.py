"""Is a token of confidence 0.9 right nine times in ten? Calibration, as JSON and a picture.

    python benchmarks/calibration.py BUNDLE strings.jsonl dev.jsonl [--noise noise.jsonl] [-o FILE]

The bundle's units must be whole words, so that a token is a word; manifests count on their utterances within
its vocabulary, as benchmarks/digits.py chooses them. With --noise, each is measured again with recorded noise
added at 20 to -5 dB, for errors to calibrate on. A token is right when the Levenshtein alignment with the
truth says so.

`ece` is the expected calibration error in percent (Guo et al., "On Calibration of Modern Neural Networks",
arXiv:1706.04599, section 2) over 15 bins of equal width, `ece_equal_count` over bins of equal count. Few
tokens give an error even to a perfect confidence: `ece_if_calibrated` is what one with these values would
show on average. `gap` is mean confidence less accuracy, in points; `auc` the percentage of pairs of a right
and a wrong token in which the right one has more confidence, null without both.

"mean" is what the decoders give. Beside it, over the same rows of the token: the geometric mean, the largest
and the smallest posterior, the mean at a softmax temperature; and for the beam the share of the n-best's mass
that has this token at this place.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from digits import in_vocabulary

from edge_speech.bundle import read_bundle
from edge_speech.ctc import CtcGreedy, CtcHypothesis, CtcPrefixBeam, CtcResult, CtcToken
from edge_speech.encoder import FloatArray
from edge_speech.features import resample
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.progress import track
from edge_speech.recognizer import Recognizer
from edge_speech.training.augment import add_noise
from edge_speech.training.recipe import Augment
from edge_speech_tools.provenance import host

BINS = 15
SNRS_DB = (20, 15, 10, 5, 0, -5)
TEMPERATURES = (0.8, 0.9, 1.1, 1.25, 1.5)
DRAWN = ("greedy mean", "beam mean", "beam share")
Scored = dict[str, list[tuple[float, bool]]]  # statistic: confidence of each token, and whether it is right


Decoder = CtcGreedy | CtcPrefixBeam


def confidences(
    decoder: Decoder, ids: dict[str, int], log_probs: FloatArray
) -> tuple[CtcResult, dict[str, list[float]]]:
    """The result for rows (T, V), and by statistic the confidence of each of its tokens."""
    decoder.reset()
    decoder.step(log_probs)
    result = decoder.finish()
    name = "greedy" if isinstance(decoder, CtcGreedy) else "beam"
    places = [(slice(t.start_row, t.end_row), ids[t.token]) for t in result.tokens]
    found = {f"{name} mean": [t.confidence for t in result.tokens]}
    for statistic, of in (("geometric mean", _geometric), ("largest", np.max), ("smallest", np.min)):
        found[f"{name} {statistic}"] = [float(of(np.exp(log_probs[place]))) for place in places]
    for temperature in TEMPERATURES:
        tempered = np.exp(_log_softmax(log_probs / temperature))
        means = [float(tempered[place].mean()) for place in places]
        found[f"{name} mean at temperature {temperature}"] = means
    if isinstance(decoder, CtcPrefixBeam):
        found["beam share"] = _shares(result.tokens, decoder.n_best())
    return result, found


def _geometric(posteriors: FloatArray) -> float:
    return float(np.exp(np.log(posteriors).mean()))


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def _shares(tokens: Iterable[CtcToken], n_best: tuple[CtcHypothesis, ...]) -> list[float]:
    """Of the n-best's probability, the part of the hypotheses that say the token on rows that overlap."""
    mass = np.exp(np.array([h.log_prob for h in n_best]) - max(h.log_prob for h in n_best))
    return [
        float(mass @ [any(_overlap(t, u) for u in h.tokens) for h in n_best] / mass.sum()) for t in tokens
    ]


def _overlap(a: CtcToken, b: CtcToken) -> bool:
    return a.token == b.token and a.start_row < b.end_row and b.start_row < a.end_row


def right(truth: list[str], heard: list[str]) -> list[bool]:
    """Which of the words heard the Levenshtein alignment puts on an equal word of the truth."""
    cost = np.zeros((len(truth) + 1, len(heard) + 1), int)
    cost[:, 0], cost[0] = range(len(truth) + 1), range(len(heard) + 1)
    for i, said in enumerate(truth, 1):
        for j, word in enumerate(heard, 1):
            cost[i, j] = min(cost[i - 1, j - 1] + (said != word), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    found, i, j = [False] * len(heard), len(truth), len(heard)
    while i and j:
        equal = truth[i - 1] == heard[j - 1]
        if cost[i, j] == cost[i - 1, j - 1] + (not equal):
            i, j = i - 1, j - 1
            found[j] = equal
        elif cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
        else:
            i -= 1
    return found


def measure_set(recognizer: Recognizer, waveforms: Iterable[tuple[Utterance, FloatArray, int]]) -> Scored:
    """Decode every waveform greedily and by beam search, and score all statistics."""
    scored: Scored = defaultdict(list)
    ids = {token: i for i, token in enumerate(recognizer.tokens)}
    greedy = CtcGreedy(recognizer.tokens, recognizer.blank_id)
    beam = CtcPrefixBeam(recognizer.tokens, blank_id=recognizer.blank_id)
    for utterance, samples, sample_rate in waveforms:
        stream = recognizer.create_stream(keep_log_probs=True)
        stream.accept_waveform(samples, sample_rate)
        stream.input_finished()
        for decoder in (greedy, beam):
            result, found = confidences(decoder, ids, stream.log_probs())
            marks = right(utterance.text.split(), [t.token.removeprefix("▁") for t in result.tokens])
            for name, values in found.items():
                scored[name] += zip(values, marks, strict=True)
    return scored


def figures(pairs: list[tuple[float, bool]]) -> dict[str, float | None]:
    """What the docstring of this file names, for one statistic on one set."""
    confidence, marks = np.array(pairs, float).reshape(-1, 2).T
    order = np.argsort(confidence, kind="stable")
    wide = [np.flatnonzero(_bin(confidence) == b) for b in range(BINS)]
    drawn = np.random.default_rng(0).random((200, len(confidence))) < confidence
    found = {
        "ece": _ece(confidence, marks, wide),
        "ece_equal_count": _ece(confidence, marks, np.array_split(order, BINS)),
        "ece_if_calibrated": float(np.mean([_ece(confidence, d, wide) for d in drawn])),
        "gap": 100 * float(confidence.mean() - marks.mean()),
        "auc": _auc(confidence, marks),
    }
    return {name: None if value is None else round(value, 2) for name, value in found.items()}


def _bin(confidence: FloatArray) -> Any:
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def _ece(confidence: FloatArray, marks: Any, bins: Iterable[Any]) -> float:
    gaps = [len(i) * abs(confidence[i].mean() - marks[i].mean()) for i in bins if len(i)]
    return 100 * float(sum(gaps)) / len(confidence)


def _auc(confidence: FloatArray, marks: FloatArray) -> float | None:
    """In percent, ties count half: Mann and Whitney's statistic."""
    good, bad = confidence[marks == 1], confidence[marks == 0]
    if not len(good) or not len(bad):
        return None
    return 100 * float(np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad)))


def report(scored: Scored) -> dict[str, Any]:
    marks = [mark for _, mark in scored["greedy mean"]]
    accuracy = round(100 * sum(marks) / len(marks), 2)
    found = {name: figures(pairs) for name, pairs in scored.items()}
    return {"tokens": len(marks), "right_percent": accuracy, "confidence": found}


def read_noises(manifest: Path, sample_rate: int) -> list[FloatArray]:
    """Its recordings at `sample_rate` Hz."""
    heard = [u.read() for u in read_manifest(manifest, need_text=False)]
    return [resample(samples, rate, sample_rate) for samples, rate in heard]


def noisy(
    clean: list[tuple[Utterance, FloatArray, int]], noises: list[FloatArray], snr_db: float
) -> Iterable[tuple[Utterance, FloatArray, int]]:
    """The same waveforms with a stretch of noise at `snr_db`; the same noise every time."""
    rng = np.random.default_rng(round(snr_db) + 100)
    how = Augment(noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
    for utterance, samples, sample_rate in clean:
        yield utterance, add_noise(rng, samples, noises, how), sample_rate


def measure(
    recognizer: Recognizer, name: str, utterances: list[Utterance], noise: Path | None
) -> dict[str, Scored]:
    """Scores by set: as recorded, and with noise at each ratio."""
    clean = [(u, *u.read()) for u in utterances]
    sets = {name: measure_set(recognizer, track(clean, name, quiet=False))}
    noises = read_noises(noise, clean[0][2]) if noise else []
    for snr_db in SNRS_DB if noise else ():
        label = f"{name}, noise at {snr_db} dB"
        sets[label] = measure_set(recognizer, track(list(noisy(clean, noises, snr_db)), label, quiet=False))
    if noise:
        names = sets[name]
        together = [sets[f"{name}, noise at {snr_db} dB"] for snr_db in SNRS_DB]
        sets[f"{name}, all noise"] = {n: [p for scored in together for p in scored[n]] for n in names}
    return sets


def draw(sets: dict[str, Scored], path: Path) -> None:
    """Accuracy against confidence per bin, with the count of tokens below; one column per set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(sets), 5.5), layout="constrained")
    axes = figure.subplots(2, len(sets), sharex=True, squeeze=False, height_ratios=[3, 1])
    for column, (name, scored) in zip(axes.T, sets.items(), strict=True):
        column[0].plot([0, 1], [0, 1], color="lightgray")
        for statistic in DRAWN:
            confidence, marks = np.array(scored[statistic], float).T
            bins = [i for b in range(BINS) if len(i := np.flatnonzero(_bin(confidence) == b))]
            points = [(confidence[i].mean(), marks[i].mean()) for i in bins]
            ece = _ece(confidence, marks, bins)
            column[0].plot(*zip(*points, strict=True), "o-", ms=3, label=f"{statistic}, ECE {ece:.1f} %")
            column[1].hist(confidence, bins=BINS, range=(0, 1), histtype="step")
        column[0].set(title=name, xlim=(0, 1), ylim=(0, 1.02))
        column[0].legend(loc="upper left", fontsize="small")
        column[1].set(yscale="log", xlabel="confidence")
    axes[0, 0].set_ylabel("tokens that are right")
    axes[1, 0].set_ylabel("tokens")
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("manifests", metavar="MANIFEST", type=Path, nargs="+")
    parser.add_argument("--noise", metavar="MANIFEST", type=Path, help="recordings of background noise")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well, and a picture")
    args = parser.parse_args()
    bundle, recognizer = read_bundle(args.bundle), Recognizer.load(args.bundle)
    sets: dict[str, Scored] = {}
    for manifest in args.manifests:
        sets |= measure(recognizer, manifest.stem, in_vocabulary(bundle, manifest), args.noise)
    results = {name: report(scored) for name, scored in sets.items()}
    text = json.dumps({"results": results, "bins": BINS, "host": host()}, indent=1)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n", encoding="utf-8")
        draw({n: s for n, s in sets.items() if " dB" not in n}, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
