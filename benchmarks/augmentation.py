"""What each augmentation costs, as JSON, and what it does, as the pictures of docs/augmentation.md.

    python benchmarks/augmentation.py [-o FILE] [--pictures DIR]

Process time of one thread in ms per second of audio, the best of five rounds over the clips of
examples/digits at 8 kHz and, resampled, at 16 kHz. "chain" has the probabilities of the recipe in
docs/augmentation.md; its figure is the mean over many draws. "front_end" is the 80-bin fbank that follows,
for comparison.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.features import FbankConfig, features_of, resample
from edge_speech.manifest import read_manifest
from edge_speech.training.augment import Chain, add_noise, change_gain, change_speed, mask, tilt
from edge_speech.training.codec import code, telephone
from edge_speech.training.recipe import Augment
from edge_speech.training.reverb import draw_response, reverberate
from edge_speech_tools.provenance import host

CLIPS = Path(__file__).parents[1] / "examples" / "digits" / "clips.jsonl"
CHAIN = Augment(reverb_probability=0.3, codec_probability=0.2, telephone_probability=0.1)
ALWAYS = Augment(noise_probability=1.0, noise_snr_db=(10.0, 10.0), time_mask_frames=20, tilt_db=10.0)
_ROUNDS = 5
Function = Callable[[FloatArray], FloatArray]


def augmentations(rng: np.random.Generator, sample_rate: int) -> dict[str, Function]:
    """By name, from waveform (N,) to waveform."""
    room = draw_response(np.random.default_rng(0), sample_rate, (0.7, 0.7), (0.0, 0.0))
    drawn = lambda: draw_response(rng, sample_rate, (0.2, 0.8), (0.0, 15.0))  # noqa: E731
    louder = lambda x: change_gain(np.random.default_rng(4), x, ALWAYS)  # noqa: E731
    return {
        "speed": lambda x: change_speed(x, sample_rate, 1.25),
        "room": lambda x: reverberate(x, room),
        "room, drawn": lambda x: reverberate(x, drawn()),
        "noise": lambda x: add_noise(rng, x, [], ALWAYS),
        "mu-law": lambda x: code(rng, x, sample_rate, "mu-law"),
        "a-law": lambda x: code(rng, x, sample_rate, "a-law"),
        "vorbis": lambda x: code(np.random.default_rng(0), x, sample_rate, "vorbis"),
        "opus": lambda x: code(rng, x, sample_rate, "opus"),
        "telephone": lambda x: telephone(x, sample_rate),
        "gain": louder,
        "chain": lambda x: Chain(CHAIN, sample_rate)(rng, x),
        "front_end": lambda x: features_of(x, FbankConfig(sample_rate=sample_rate)),
    }


def ms_per_second(function: Function, clips: list[FloatArray], sample_rate: int, rounds: int) -> float:
    """Process time per second of audio."""
    function(clips[0])
    times = []
    for _ in range(rounds):
        started = time.process_time()
        for clip in clips:
            function(clip)
        times.append(time.process_time() - started)
    seconds = sum(map(len, clips)) / sample_rate
    return 1000 / seconds * (min(times) if rounds == _ROUNDS else sum(times) / rounds)


def measure() -> dict[str, Any]:
    """{"machine", "ms_per_second": {rate: {name: ms}}}."""
    recorded = [u.read() for u in read_manifest(CLIPS)]
    measured: dict[str, dict[str, float]] = {}
    for sample_rate in (8000, 16000):
        clips = [resample(samples, rate, sample_rate) for samples, rate in recorded]
        functions = augmentations(np.random.default_rng(0), sample_rate)
        measured[str(sample_rate)] = {
            name: round(ms_per_second(f, clips, sample_rate, 40 if name == "chain" else _ROUNDS), 3)
            for name, f in functions.items()
        }
    return {"machine": host(), "ms_per_second": measured}


def draw_all(folder: Path) -> None:
    """NAME.png of each augmentation, before and after."""
    samples, sample_rate = read_manifest(CLIPS)[0].read()
    folder.mkdir(parents=True, exist_ok=True)
    functions = augmentations(np.random.default_rng(3), sample_rate)
    for name in ("speed", "room", "noise", "mu-law", "vorbis", "telephone", "gain"):
        heard = functions[name](samples)
        draw(spectrogram(samples), spectrogram(heard), name, folder, sample_rate)
    features = features_of(samples, FbankConfig(sample_rate=sample_rate, num_mel_bins=40))
    for name, function in (("tilt", tilt), ("mask", mask)):
        changed = function(np.random.default_rng(1), features, ALWAYS)
        draw(features.T * 10 / np.log(10), changed.T * 10 / np.log(10), name, folder, None)


def spectrogram(samples: FloatArray) -> FloatArray:
    """Power in dB (bins, frames): frames of 256 samples, a new one each 80."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 256)[::80] * np.hanning(256)
    decibels: FloatArray = 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-5).T
    return decibels


def draw(before: FloatArray, after: FloatArray, name: str, folder: Path, rate: int | None) -> None:
    """Two panels with one scale of colours; `rate` where the bins are frequencies and not mel bins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.8, 2.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    high = max(before.max(), after.max())
    for axes, image, title in zip(panels, (before, after), ("before", f"after: {name}"), strict=True):
        extent = (0, image.shape[1] / 100, 0, len(image) if rate is None else rate / 2000)
        shown = axes.imshow(
            image, origin="lower", aspect="auto", extent=extent, vmin=high - 80, vmax=high, cmap="magma"
        )
        axes.set(title=title, xlabel="seconds")
    panels[0].set_ylabel("mel bin" if rate is None else "kHz")
    panels[0].set_xlim(0, before.shape[1] / 100)
    figure.colorbar(shown, ax=panels, label="dB")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    save_small(content, folder / f"{name}.png")


def save_small(content: io.BytesIO, path: Path) -> None:
    """Write a PNG of 24 colours."""
    from PIL import Image  # matplotlib brings it

    image = Image.open(content).convert("RGB").quantize(24, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the pictures into this folder")
    args = parser.parse_args()
    if args.pictures:
        draw_all(args.pictures)
    text = json.dumps(measure(), indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
