"""Microseconds per feature frame, ours beside kaldi-native-fbank and torchaudio, as JSON and a picture.

    python benchmarks/features.py [-o FILE]

60 s of noise at 16 kHz, 80-bin fbank, one thread, counted from Python; streaming means 100 ms pieces with a
read after each. Figures are medians of several runs, taken in turns so that a busy moment strikes all alike.
kaldi-native-fbank takes its samples one Python number at a time; a list is the faster way in. MFCC, the
log-mel definitions, and fbank with both extra features show what they cost beside fbank.
"""

from __future__ import annotations

import argparse
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
import torch

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import oracles
from edge_speech.features import (
    FbankConfig,
    FloatArray,
    FrontendConfig,
    LogMelConfig,
    MfccConfig,
    OnlineFbank,
    OnlineFrontend,
)
from edge_speech_tools.provenance import host

CONFIG = FbankConfig()
MFCC = MfccConfig(delta_order=2, normalization="sliding")  # 13 and first and second differences
FBANK_AND_EXTRAS = FbankConfig(extra_features=("spectral_contrast", "chroma"))  # 80 and 19
AUDIO_S = 60
RUNS = 7
PIECE = CONFIG.sample_rate // 10


def ours_streaming(samples: FloatArray) -> int:
    return _stream(samples, CONFIG)


def ours_streaming_mfcc_39(samples: FloatArray) -> int:
    return _stream(samples, MFCC)


def ours_streaming_whisper(samples: FloatArray) -> int:
    return _stream(samples, LogMelConfig.whisper())


def ours_streaming_nemo(samples: FloatArray) -> int:
    return _stream(samples, LogMelConfig.nemo())


def ours_streaming_with_contrast_and_chroma(samples: FloatArray) -> int:
    return _stream(samples, FBANK_AND_EXTRAS)


def _stream(samples: FloatArray, config: FrontendConfig) -> int:
    online = OnlineFrontend(config)
    frames = 0
    for start in range(0, len(samples), PIECE):
        online.accept_waveform(samples[start : start + PIECE], config.sample_rate)
        frames += len(online.read())
    online.input_finished()
    return frames + len(online.read())


def ours_whole(samples: FloatArray) -> int:
    fbank = OnlineFbank(CONFIG)
    fbank.accept_waveform(samples, CONFIG.sample_rate)
    fbank.input_finished()
    return len(fbank.read())


def kaldi_native_fbank_streaming_lists(samples: FloatArray) -> int:
    return _kaldi_native_fbank(samples, np.ndarray.tolist)


def kaldi_native_fbank_streaming_arrays(samples: FloatArray) -> int:
    return _kaldi_native_fbank(samples, np.asarray)


def _kaldi_native_fbank(samples: FloatArray, as_argument: Callable[[FloatArray], object]) -> int:
    fbank = oracles.open_knf(CONFIG)
    rows = []
    for start in range(0, len(samples), PIECE):
        fbank.accept_waveform(CONFIG.sample_rate, as_argument(samples[start : start + PIECE]))
        while len(rows) < fbank.num_frames_ready:
            rows.append(fbank.get_frame(len(rows)))
    fbank.input_finished()
    rows += [fbank.get_frame(i) for i in range(len(rows), fbank.num_frames_ready)]
    return len(rows)


def torchaudio_whole(samples: FloatArray) -> int:
    return len(oracles.torchaudio_fbank(samples, CONFIG))


CONTENDERS = [
    ours_streaming,
    kaldi_native_fbank_streaming_arrays,
    kaldi_native_fbank_streaming_lists,
    ours_whole,
    torchaudio_whole,
    ours_streaming_mfcc_39,
    ours_streaming_whisper,
    ours_streaming_nemo,
    ours_streaming_with_contrast_and_chroma,
]


def microseconds_per_frame(function: Callable[[FloatArray], int], samples: FloatArray) -> float:
    start = time.perf_counter()
    frames = function(samples)
    return (time.perf_counter() - start) / frames * 1e6


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    samples = np.random.default_rng(0).normal(0, 0.1, AUDIO_S * CONFIG.sample_rate).astype(np.float32)
    for function in CONTENDERS:
        function(samples[: CONFIG.sample_rate])
    runs = [[microseconds_per_frame(function, samples) for function in CONTENDERS] for _ in range(RUNS)]
    return {
        "us_per_frame": {
            f.__name__: round(median(c), 2) for f, c in zip(CONTENDERS, zip(*runs, strict=True), strict=True)
        },
        "relative_difference_to_torchaudio": relative_difference(samples[: 10 * CONFIG.sample_rate]),
        "audio_s": AUDIO_S,
        "runs": RUNS,
        "num_mel_bins": CONFIG.num_mel_bins,
        "piece_ms": 100,
        "machine": machine(),
    }


def relative_difference(samples: FloatArray) -> float:
    """Of mel energies, the largest, to torchaudio, all in double precision."""
    fbank = OnlineFbank(CONFIG)
    fbank.accept_waveform(samples, CONFIG.sample_rate)
    fbank.input_finished()
    theirs = oracles.torchaudio_fbank(samples.astype(np.float64), CONFIG)
    return float(f"{np.abs(np.expm1(fbank.read() - theirs)).max():.2g}")


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        **host(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "torch", "torchaudio", "kaldi-native-fbank")},
    }


def draw(figures: dict[str, float], path: Path) -> None:
    """Bars of microseconds per frame, ours and theirs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    names = [name.replace("_", " ") for name in figures]
    colours = ["tab:green" if name.startswith("ours") else "tab:gray" for name in figures]
    axes.bar_label(axes.barh(names, list(figures.values()), color=colours), fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("microseconds a frame, from Python, one core")
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well, and a picture")
    output = parser.parse_args().output
    measured = measure()
    text = json.dumps(measured, indent=2)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
        draw(measured["us_per_frame"], output.with_suffix(".png"))


if __name__ == "__main__":
    main()
