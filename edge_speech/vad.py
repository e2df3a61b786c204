"""Where there is speech: what a detector is, and one by loudness alone (C++ underneath)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError
from edge_speech.features import input_errors, mono_float32
from edge_speech.onnx_vad import OnnxVad

__all__ = ["EnergyVad", "OnnxVad", "Vad", "VadConfig", "open_for_stream"]


class Vad(Protocol):
    """A voice activity detector: one decision for each whole frame, the same however the waveform is cut.

    A frame is the samples of `frame_ms`, rounded down.
    """

    @property
    def frame_ms(self) -> float:
        """What one decision is about."""

    def accept_waveform(self, samples: npt.NDArray[np.float32], sample_rate: int) -> None:
        """Add samples (N,) in [-1, 1], mono. Raises InputError on a rate that it does not take."""

    def read(self) -> npt.NDArray[np.bool_]:
        """Whether there is speech in each whole frame since the last read: (T,)."""

    def reset(self) -> None:
        """Forget the waveform."""


@dataclass(frozen=True)
class VadConfig:
    """Levels are in dB, full scale being 0; opening the detector checks the ranges.

    Speech begins when frames are `onset_db` above the noise for `min_speech_ms`, and ends when they are less
    than `offset_db` above it for `hangover_ms`; what is below `least_db` is never speech. The noise level is
    the least frame level so far, let up by `floor_rise_db_per_s`.
    """

    sample_rate: int = 16000
    frame_ms: float = 10.0
    onset_db: float = 10.0
    offset_db: float = 5.0
    least_db: float = -55.0
    floor_rise_db_per_s: float = 3.0
    min_speech_ms: float = 50.0
    hangover_ms: float = 200.0


class EnergyVad:
    """Speech or not, frame by frame, of a waveform that arrives in pieces; the same however it is cut.

    Raises InputError on a configuration outside its ranges.
    """

    def __init__(self, config: VadConfig | None = None) -> None:
        self.config = config or VadConfig()
        with input_errors(f"{self.config}"):
            self._vad = _core.EnergyVad(**asdict(self.config))

    @property
    def frame_ms(self) -> float:
        """What one decision is about, but for a rest of a sample."""
        return self.config.frame_ms

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add `samples` (N,), float in [-1, 1] or int16, mono.

        Raises InputError, and consumes nothing, on other samples and on any rate but the configuration's.
        """
        if sample_rate != self.config.sample_rate:
            raise InputError(
                f"sample_rate is {sample_rate}; allowed: {self.config.sample_rate}; resample first"
            )
        with input_errors("samples"):
            self._vad.accept_waveform(mono_float32(samples))

    def read(self) -> npt.NDArray[np.bool_]:
        """Whether there is speech in each whole frame since the last read: (T,)."""
        return np.array(self._vad.read(), dtype=np.bool_)

    def reset(self) -> None:
        """Forget the waveform and its noise level."""
        self._vad.reset()


def open_for_stream(vad: Vad, sample_rate: int) -> Vad:
    """`vad`, reset. Raises InputError when it is none or does not take `sample_rate`."""
    missing = [n for n in ("frame_ms", "accept_waveform", "read", "reset") if not hasattr(vad, n)]
    if missing:
        raise InputError(f"vad is {vad!r} without {', '.join(missing)}; see edge_speech.vad.Vad")
    if not isinstance(vad.frame_ms, int | float) or not 1 <= vad.frame_ms <= 1000:
        raise InputError(f"the vad's frame_ms is {vad.frame_ms!r}; allowed: 1 to 1000")
    vad.reset()
    vad.accept_waveform(np.zeros(0, np.float32), sample_rate)
    return vad
