"""The front ends of training: those that stream, and for offline models the samples themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from edge_speech import features
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import FrontendConfig
from edge_speech.training import models


@dataclass(frozen=True)
class WaveformConfig:
    """What wav2vec 2.0 reads: samples at 16 kHz, 160 to a frame. No device has this front end."""

    sample_rate: ClassVar[int] = 16000
    frame_shift_ms: ClassVar[float] = 10.0
    num_features: ClassVar[int] = 160


TrainingFrontend: TypeAlias = FrontendConfig | WaveformConfig


def frontend_for(architecture: str, data: dict[str, Any]) -> TrainingFrontend:
    """The configuration that `data` describes: as `features.frontend_from_dict`, or {"type": "waveform"} for
    offline architectures and no others. Raises InputError."""
    if architecture not in models.OFFLINE:
        return features.frontend_from_dict(data)
    if data != {"type": "waveform"}:
        raise InputError(f"frontend is {data!r}; {architecture} reads samples: allowed is type = 'waveform'")
    return WaveformConfig()


def frontend_to_dict(config: TrainingFrontend) -> dict[str, Any]:
    """Inverse of `frontend_for`."""
    return {"type": "waveform"} if isinstance(config, WaveformConfig) else features.frontend_to_dict(config)


def features_of(waveform: FloatArray, frontend: TrainingFrontend) -> FloatArray:
    """Features (T, F) of a whole waveform (N,) at the front end's rate; the last frame of samples is filled
    with zeros. Raises InputError."""
    if not isinstance(frontend, WaveformConfig):
        return features.features_of(waveform, frontend)
    padded = np.pad(features.mono_float32(waveform), (0, -len(waveform) % frontend.num_features))
    return padded.reshape(-1, frontend.num_features)
