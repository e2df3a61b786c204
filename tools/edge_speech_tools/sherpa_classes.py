"""The streaming CTC classes of sherpa-onnx that models of ours can run in, and the front ends they compute.

sherpa-onnx takes its front end from the class that a model is loaded with, not from the model, so a model
runs there only if it was trained on what its class computes. Found by running sherpa-onnx 2.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError
from edge_speech.features import FbankConfig, FrontendConfig, LogMelConfig

# Smallest energy of kaldi-native-fbank, before the logarithm.
FLT_EPSILON = 1.1920929e-07

# `from_wenet_ctc`: Kaldi's filterbank on the scale of int16, up to 400 Hz below the Nyquist frequency.
KALDI = FbankConfig(high_freq_hz=-400.0)
# `from_nemo_ctc`: NeMo's log-mel energies. Its frames lie half a shift later than NeMo's (they are centred
# as Kaldi's) and the logarithm has a floor of FLT_EPSILON in place of NeMo's guard of 2^-24.
NEMO = LogMelConfig.nemo()

# May be anything: the class is told, or the ends of a recording alone depend on it.
_FREE = ("sample_rate", "num_mel_bins", "fft_size", "padding", "keep_last_frame")


@dataclass(frozen=True)
class SherpaClass:
    """The method of `sherpa_onnx.OnlineRecognizer` that loads it, and the front end it computes."""

    loader: str
    frontend: FrontendConfig


WENET = SherpaClass("from_wenet_ctc", KALDI)
NEMO_CTC = SherpaClass("from_nemo_ctc", NEMO)


def class_for(frontend: FrontendConfig) -> SherpaClass:
    """The class that computes `frontend`. Raises InputError with what differs from the nearest one."""
    classes = {FbankConfig: WENET, LogMelConfig: NEMO_CTC}
    nearest = classes.get(type(frontend))
    if nearest is None:
        raise InputError(
            f"sherpa-onnx has no streaming CTC class with the front end {type(frontend).__name__}; train "
            "with frontend.type 'fbank' and high_freq_hz = -400, or 'log_mel' as NeMo's"
        )
    differing = _differences(frontend, nearest.frontend)
    if differing:
        raise InputError(
            f"sherpa-onnx's {nearest.loader} computes another front end than the model was trained on: "
            f"{'; '.join(differing)}. It cannot be told otherwise: train with its values, or leave "
            "sherpa-onnx out of --backends"
        )
    return nearest


def loading(spec: StreamingSpec, frontend: FrontendConfig) -> tuple[str, dict[str, Any]]:
    """The method that loads a model converted for its class, and the options it needs. Raises InputError."""
    chosen = class_for(frontend)
    options = {"sample_rate": frontend.sample_rate, "feature_dim": frontend.num_features}
    rows = {"chunk_size": spec.output_frames} if chosen is WENET else {}
    return chosen.loader, {**options, **rows}


def _differences(frontend: FrontendConfig, computed: FrontendConfig) -> list[str]:
    """`name` is …, it has …, for every field that must be as computed."""
    expected = computed
    if isinstance(frontend, LogMelConfig) and isinstance(computed, LogMelConfig):
        expected = _with_floor(computed, frontend)
    names = [f.name for f in fields(frontend) if f.name not in _FREE]
    pairs = [(name, getattr(frontend, name), getattr(expected, name)) for name in names]
    found = [f"{name} is {got!r}, it has {want!r}" for name, got, want in pairs if got != want]
    if isinstance(frontend, LogMelConfig):
        fft_size = 1 << (round(frontend.frame_length_ms * frontend.sample_rate / 1000) - 1).bit_length()
        if frontend.fft_size != fft_size:
            found.append(f"fft_size is {frontend.fft_size}, it has {fft_size}")
    return found


def _with_floor(computed: LogMelConfig, frontend: LogMelConfig) -> LogMelConfig:
    """sherpa-onnx's own floor of the logarithm is as good as NeMo's guard."""
    is_own = frontend.log_guard == 0 and abs(frontend.log_floor - FLT_EPSILON) < 1e-10
    return replace(computed, log_floor=frontend.log_floor, log_guard=0.0) if is_own else computed
