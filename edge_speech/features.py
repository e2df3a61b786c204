"""The front end: waveform in, log-mel filterbank frames out. Training and device run this same C++ code."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FbankConfig:
    """Kaldi's filterbank options under their usual names; `OnlineFbank` checks the ranges.

    Samples in [-1, 1] are scaled to the int16 range first, so energies and `dither` are on Kaldi's scale.
    `high_freq_hz` of zero or less is added to the Nyquist frequency.
    """

    sample_rate: int = 16000
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: str = "povey"
    preemphasis: float = 0.97
    remove_dc_offset: bool = True
    low_freq_hz: float = 20.0
    high_freq_hz: float = 0.0
    snip_edges: bool = False
    dither: float = 0.0


def frontend_from_dict(data: dict[str, Any]) -> FbankConfig:
    """The configuration in a model's or bundle's `frontend`: {"type": "fbank", ...}. Raises InputError."""
    if not isinstance(data, dict) or data.get("type") != "fbank":
        got = data.get("type") if isinstance(data, dict) else data
        raise InputError(f"frontend type is {got!r}; allowed: 'fbank'")
    fields = {field.name: type(field.default) for field in dataclasses.fields(FbankConfig)}
    unknown = sorted(set(data) - set(fields) - {"type"})
    if unknown:
        raise InputError(f"frontend has unknown keys {unknown}; allowed: {', '.join(fields)}")
    config = FbankConfig(**{name: _typed(name, data[name], fields[name]) for name in fields if name in data})
    OnlineFbank(config)
    return config


def frontend_to_dict(config: FbankConfig) -> dict[str, Any]:
    """Inverse of `frontend_from_dict`."""
    return {"type": "fbank", **asdict(config)}


class OnlineFbank:
    """Log-mel filterbank frames of a waveform that arrives in pieces.

    However the waveform is cut, the frames are bit-identical. Memory stays bounded while frames are read.
    Raises InputError on a configuration outside its ranges.
    """

    def __init__(self, config: FbankConfig | None = None) -> None:
        self.config = config or FbankConfig()
        try:
            self._fbank = _core.OnlineFbank(_core.FbankConfig(**asdict(self.config)))
        except ValueError as error:
            raise InputError(str(error)) from None

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add `samples` (N,), float in [-1, 1] or int16, mono. Raises InputError and then consumes nothing."""
        if sample_rate != self.config.sample_rate:
            raise InputError(f"sample_rate is {sample_rate}; this front end takes {self.config.sample_rate}")
        try:
            self._fbank.accept_waveform(mono_float32(samples))
        except (ValueError, RuntimeError) as error:
            raise InputError(str(error)) from None

    def input_finished(self) -> None:
        """No more samples until `reset`; the frames that reach over the end become ready."""
        self._fbank.input_finished()

    def read(self) -> FloatArray:
        """All frames ready since the last read: (T, num_mel_bins), natural log of mel energies."""
        frames: FloatArray = self._fbank.read()
        return frames

    def reset(self) -> None:
        """Forget the waveform; ready for a new one."""
        self._fbank.reset()


def mono_float32(samples: npt.ArrayLike) -> FloatArray:
    """(N,) float or int16 samples as contiguous float32 in [-1, 1]. Raises InputError on anything else."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise InputError(
            f"samples have shape {array.shape}; allowed: one channel, shape (N,); mix or pick a channel"
        )
    if array.dtype == np.int16:
        return array.astype(np.float32) / np.float32(32768)
    if array.dtype.kind != "f":
        raise InputError(f"samples are {array.dtype}; allowed: float32 in [-1, 1] or int16")
    return np.ascontiguousarray(array, dtype=np.float32)


def _typed(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (an int passes for a float, nothing else does). Raises InputError."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"frontend {name} is {value!r}; allowed: a value of type {kind.__name__}")
    return value
