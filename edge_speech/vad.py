"""Where there is speech, by loudness alone (C++ underneath)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError
from edge_speech.features import input_errors, mono_float32


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
        return np.array(self._vad.take(), dtype=np.bool_)

    def reset(self) -> None:
        """Forget the waveform and its noise level."""
        self._vad.reset()
