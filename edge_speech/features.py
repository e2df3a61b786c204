"""The front end: waveform in, log-mel filterbank frames out. Training and device run this same C++ code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError

FloatArray = npt.NDArray[np.float32]

# A log-mel bin of digital silence: the floor of the logarithm, ln(FLT_EPSILON).
SILENCE = -15.942385


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
        self._resampler: Resampler | None = None
        self._sample_rate: int | None = None  # of the waveform, once its first piece is in
        with _input_errors(f"{self.config}"):
            self._fbank = _core.OnlineFbank(_core.FbankConfig(**asdict(self.config)))

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add `samples` (N,), float in [-1, 1] or int16, mono, at any rate from 4 to 192 kHz.

        Raises InputError, and consumes nothing, on other samples, on a rate that changes within a waveform
        and after `input_finished`.
        """
        if sample_rate == self._sample_rate == self.config.sample_rate:
            try:
                self._fbank.accept_waveform(samples)  # float32 goes straight in
                return
            except TypeError:
                pass
            except (ValueError, RuntimeError) as error:
                raise InputError(str(error)) from None
        self._accept_checked(samples, sample_rate)

    def _accept_checked(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        if self._sample_rate not in (None, sample_rate):
            raise InputError(
                f"sample_rate is {sample_rate}, was {self._sample_rate}; a waveform has one rate; reset first"
            )
        if sample_rate == self.config.sample_rate:
            with _input_errors("samples"):
                self._fbank.accept_waveform(mono_float32(samples))
        else:
            self._accept_resampled(samples, sample_rate)
        self._sample_rate = sample_rate

    def input_finished(self) -> None:
        """No more samples until `reset`; the frames that reach over the end become ready."""
        if self._resampler is not None and self._sample_rate == self._resampler.in_hz:
            rest = self._resampler.flush()
            if len(rest) > 0:
                self._fbank.accept_waveform(rest)
        self._fbank.input_finished()

    def read(self) -> FloatArray:
        """All frames ready since the last read: (T, num_mel_bins), natural log of mel energies."""
        return self._fbank.read()

    def reset(self) -> None:
        """Forget the waveform; ready for a new one, of any rate."""
        self._fbank.reset()
        self._sample_rate = None
        if self._resampler is not None:
            self._resampler.reset()

    def _accept_resampled(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        if self._resampler is None or self._resampler.in_hz != sample_rate:
            self._resampler = Resampler(sample_rate, self.config.sample_rate)
        resampled = self._resampler.process(samples)
        with _input_errors("samples"):
            self._fbank.accept_waveform(resampled)


class Resampler:
    """Sample rate conversion of a waveform that arrives in pieces, without delay.

    Output sample m lies at time m / out_hz; N samples in give ceil(N * out_hz / in_hz) out, the last of them
    by `flush`. However the waveform is cut, the output is bit-identical. The passband reaches 0.9 of the
    lower Nyquist frequency; aliases and images are at least 90 dB down. Raises InputError on a rate outside
    4000 to 192000 Hz.
    """

    def __init__(self, in_hz: int, out_hz: int) -> None:
        self.in_hz = in_hz
        self.out_hz = out_hz
        with _input_errors(f"sample rates {in_hz!r} and {out_hz!r}"):
            self._resampler = _core.Resampler(in_hz, out_hz)

    def process(self, samples: npt.ArrayLike) -> FloatArray:
        """What `samples` (N,), float in [-1, 1] or int16, determine of the output: (M,).

        Raises InputError, and consumes nothing, on other samples and after `flush`.
        """
        with _input_errors("samples"):
            return self._resampler.process(mono_float32(samples))

    def flush(self) -> FloatArray:
        """The rest of the output (M,), silence following the waveform; no more samples until `reset`."""
        return self._resampler.flush()

    def reset(self) -> None:
        """Forget the waveform; ready for a new one."""
        self._resampler.reset()


def mono_float32(samples: npt.ArrayLike) -> FloatArray:
    """(N,) float or int16 samples as contiguous float32 in [-1, 1]. Raises InputError on anything else."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise InputError(
            f"samples have shape {array.shape}; allowed: one channel, shape (N,); mix or pick a channel"
        )
    if array.dtype == np.int16:
        scaled: FloatArray = np.multiply(array, np.float32(1 / 32768), dtype=np.float32)
        return scaled
    if array.dtype.kind != "f":
        raise InputError(f"samples are {array.dtype}; allowed: float32 in [-1, 1] or int16")
    contiguous: FloatArray = np.ascontiguousarray(array, dtype=np.float32)
    return contiguous


def _typed(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (an int passes for a float, nothing else does). Raises InputError."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"frontend {name} is {value!r}; allowed: a value of type {kind.__name__}")
    return value


@contextmanager
def _input_errors(subject: str) -> Iterator[None]:
    """What the C++ core refuses, as the error that commands report."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(str(error)) from None
    except TypeError:
        raise InputError(f"{subject}: a value of the wrong type or size; see help({__name__})") from None
