"""The front end: waveform in, feature frames out. Training and device run this same C++ code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError

FloatArray = npt.NDArray[np.float32]

# A log-mel bin of digital silence: the floor of the logarithm, ln(FLT_EPSILON).
SILENCE = -15.942385


@dataclass(frozen=True, kw_only=True)
class ExtraFeatures:
    """What any front end can append to its frames, of the spectrum that a frame's mel energies come from.

    `extra_features` names them, in the order of the columns. "spectral_contrast": librosa's, in decibels,
    over 0 to 200 Hz and `contrast_bands` octaves above, of which the last begins below the Nyquist frequency
    and reaches to it. librosa also raises peaks and valleys to 80 dB below the loudest of the recording,
    which a stream cannot know: that step is left out. "chroma": librosa's chroma_stft, the twelve pitch
    classes from C, the largest of a frame 1; silence 0. A lies `chroma_tuning` semitones above 440 Hz:
    estimating it would take the whole recording. Normalisation and differences over time are of these
    features as of all others.
    """

    extra_features: tuple[str, ...] = ()
    contrast_bands: int = 6
    chroma_tuning: float = 0.0

    @property
    def num_extra_features(self) -> int:
        """Values that a frame has more, before differences over time."""
        sizes = {"spectral_contrast": self.contrast_bands + 1, "chroma": 12}
        return sum(sizes.get(name, 0) for name in self.extra_features)


@dataclass(frozen=True)
class FbankConfig(ExtraFeatures):
    """Kaldi's filterbank options under their usual names; opening the front end checks the ranges.

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

    @property
    def num_features(self) -> int:
        """F: values in a frame."""
        return self.num_mel_bins + self.num_extra_features


@dataclass(frozen=True)
class MfccConfig(ExtraFeatures):
    """Kaldi's MFCC: the options of fbank, then cepstra, normalisation and differences over time.

    With `use_energy` the first coefficient is the logarithm of the frame's energy, before pre-emphasis and
    window if `raw_energy`, and at least ln(`energy_floor`). `delta_order` 2 appends first and second
    differences over `delta_window` frames to either side, as Kaldi's add-deltas. `normalization`, applied
    before that, is "none", "fixed" ((x - feature_mean) / feature_std, one value for all features or one for
    each) or "sliding" (as Kaldi's apply-cmvn-sliding looking back: less the mean of the last
    `sliding_frames`, and of `sliding_min_frames` at the beginning, which delays the first frames; divided by
    their standard deviation with `sliding_variance`).
    """

    sample_rate: int = 16000
    num_mel_bins: int = 23
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: str = "povey"
    preemphasis: float = 0.97
    remove_dc_offset: bool = True
    low_freq_hz: float = 20.0
    high_freq_hz: float = 0.0
    snip_edges: bool = False
    dither: float = 0.0
    num_ceps: int = 13
    cepstral_lifter: float = 22.0
    use_energy: bool = True
    raw_energy: bool = True
    energy_floor: float = 0.0
    delta_order: int = 0
    delta_window: int = 2
    normalization: str = "none"
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    sliding_frames: int = 600
    sliding_min_frames: int = 100
    sliding_variance: bool = False

    @property
    def num_features(self) -> int:
        """F: values in a frame."""
        return (self.num_ceps + self.num_extra_features) * (1 + self.delta_order)


@dataclass(frozen=True)
class LogMelConfig(ExtraFeatures):
    """Log-mel energies with a Hann window and Slaney's mel filters; see `whisper`, `nemo` and `librosa`.

    Frames are centred on multiples of the shift; beyond the ends of the waveform lies its reflection or
    silence (`padding` "reflect" or "zero"). `keep_last_frame` gives 1 + floor(samples / shift) frames and
    otherwise it is one less. A value is log(max(energy, log_floor) + log_guard), `log` "log10" or "natural".
    `preemphasis` is of the whole waveform. `normalization` is that of `MfccConfig`: statistics of a whole
    utterance are not known while it is streamed, so those of a corpus are given as "fixed".
    """

    sample_rate: int = 16000
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    fft_size: int = 400
    window_periodic: bool = True
    preemphasis: float = 0.0
    padding: str = "reflect"
    keep_last_frame: bool = False
    low_freq_hz: float = 0.0
    high_freq_hz: float = 0.0
    log: str = "log10"
    log_floor: float = 1e-10
    log_guard: float = 0.0
    normalization: str = "none"
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    sliding_frames: int = 600
    sliding_min_frames: int = 100
    sliding_variance: bool = False

    @property
    def num_features(self) -> int:
        """F: values in a frame."""
        return self.num_mel_bins + self.num_extra_features

    @staticmethod
    def whisper(num_mel_bins: int = 80) -> LogMelConfig:
        """OpenAI Whisper's (whisper/audio.py): (log10 energy + 4) / 4.

        Whisper also raises everything to 8 below the loudest value of the whole recording, which a stream
        cannot know: that step is left out.
        """
        return LogMelConfig(
            num_mel_bins=num_mel_bins, normalization="fixed", feature_mean=(-4.0,), feature_std=(4.0,)
        )

    @staticmethod
    def nemo(num_mel_bins: int = 80) -> LogMelConfig:
        """NVIDIA NeMo's AudioToMelSpectrogramPreprocessor with normalize="NA" and dither=0."""
        return LogMelConfig(
            num_mel_bins=num_mel_bins,
            fft_size=512,
            window_periodic=False,
            preemphasis=0.97,
            padding="zero",
            log="natural",
            log_floor=0.0,
            log_guard=2.0**-24,
        )

    @staticmethod
    def librosa(sample_rate: int = 22050, num_mel_bins: int = 128, fft_size: int = 2048) -> LogMelConfig:
        """log of librosa.feature.melspectrogram, a quarter of `fft_size` apart; at least ln(1e-10)."""
        return LogMelConfig(
            sample_rate=sample_rate,
            num_mel_bins=num_mel_bins,
            frame_length_ms=1000.0 * fft_size / sample_rate,
            frame_shift_ms=250.0 * fft_size / sample_rate,
            fft_size=fft_size,
            padding="zero",
            keep_last_frame=True,
            log="natural",
        )


FrontendConfig: TypeAlias = FbankConfig | MfccConfig | LogMelConfig

_TYPES: dict[str, type[FrontendConfig]] = {"fbank": FbankConfig, "mfcc": MfccConfig, "log_mel": LogMelConfig}


def frontend_from_dict(data: dict[str, Any]) -> FrontendConfig:
    """The configuration in a model's or bundle's `frontend`: {"type": "fbank" | "mfcc" | "log_mel", ...}.

    Raises InputError.
    """
    name = data.get("type") if isinstance(data, dict) else data
    if not isinstance(data, dict) or not isinstance(name, str) or name not in _TYPES:
        raise InputError(f"frontend type is {name!r}; allowed: {', '.join(map(repr, _TYPES))}")
    fields = get_type_hints(_TYPES[name])
    unknown = sorted(set(data) - set(fields) - {"type"})
    if unknown:
        raise InputError(f"frontend has unknown keys {unknown}; allowed: {', '.join(fields)}")
    config = _TYPES[name](**{key: _typed(key, data[key], fields[key]) for key in fields if key in data})
    OnlineFrontend(config)
    return config


def frontend_to_dict(config: FrontendConfig) -> dict[str, Any]:
    """Inverse of `frontend_from_dict`, ready for JSON."""
    name = next(name for name, kind in _TYPES.items() if type(config) is kind)
    fields = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()
    }
    return {"type": name, **fields}


def native_config(config: FrontendConfig) -> _core.FrontendConfig:
    """`config` for the C++ core. Raises InputError on values of the wrong type."""
    native: _core.FrontendConfig = getattr(_core, type(config).__name__)()
    with input_errors(f"{config}"):
        for name, value in asdict(config).items():
            setattr(native, name, value)
    return native


class OnlineFrontend:
    """Feature frames of a waveform that arrives in pieces, as any of the configurations says.

    However the waveform is cut, the frames are bit-identical. Memory stays bounded while frames are read.
    Raises InputError on a configuration outside its ranges.
    """

    def __init__(self, config: FrontendConfig) -> None:
        self.config = config
        self._resampler: Resampler | None = None
        self._sample_rate: int | None = None  # of the waveform, once its first piece is in
        with input_errors(f"{self.config}"):
            self._frontend = _core.Frontend(native_config(config))

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add `samples` (N,), float in [-1, 1] or int16, mono, at any rate from 4 to 192 kHz.

        Raises InputError, and consumes nothing, on other samples, on a rate that changes within a waveform
        and after `input_finished`.
        """
        if sample_rate == self._sample_rate == self.config.sample_rate:
            try:
                self._frontend.accept_waveform(samples)  # float32 goes straight in
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
            with input_errors("samples"):
                self._frontend.accept_waveform(mono_float32(samples))
        else:
            self._accept_resampled(samples, sample_rate)
        self._sample_rate = sample_rate

    def input_finished(self) -> None:
        """No more samples until `reset`; the frames that reach over the end become ready."""
        if self._resampler is not None and self._sample_rate == self._resampler.in_hz:
            rest = self._resampler.flush()
            if len(rest) > 0:
                self._frontend.accept_waveform(rest)
        self._frontend.input_finished()

    def read(self) -> FloatArray:
        """All frames ready since the last read: (T, F), F being `config.num_features`."""
        return self._frontend.read()

    def reset(self) -> None:
        """Forget the waveform; ready for a new one, of any rate."""
        self._frontend.reset()
        self._sample_rate = None
        if self._resampler is not None:
            self._resampler.reset()

    def _accept_resampled(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        if self._resampler is None or self._resampler.in_hz != sample_rate:
            self._resampler = Resampler(sample_rate, self.config.sample_rate)
        resampled = self._resampler.process(samples)
        with input_errors("samples"):
            self._frontend.accept_waveform(resampled)


class OnlineFbank(OnlineFrontend):
    """Log-mel filterbank frames: (T, num_mel_bins), natural log of mel energies. See `OnlineFrontend`."""

    def __init__(self, config: FbankConfig | None = None) -> None:
        super().__init__(config or FbankConfig())


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
        with input_errors(f"sample rates {in_hz!r} and {out_hz!r}"):
            self._resampler = _core.Resampler(in_hz, out_hz)

    def process(self, samples: npt.ArrayLike) -> FloatArray:
        """What `samples` (N,), float in [-1, 1] or int16, determine of the output: (M,).

        Raises InputError, and consumes nothing, on other samples and after `flush`.
        """
        with input_errors("samples"):
            return self._resampler.process(mono_float32(samples))

    def flush(self) -> FloatArray:
        """The rest of the output (M,), silence following the waveform; no more samples until `reset`."""
        return self._resampler.flush()

    def reset(self) -> None:
        """Forget the waveform; ready for a new one."""
        self._resampler.reset()


def features_of(waveform: FloatArray, frontend: FrontendConfig) -> FloatArray:
    """Features (T, F) of a whole waveform (N,) at the front end's rate. Raises InputError."""
    online = OnlineFrontend(frontend)
    online.accept_waveform(waveform, frontend.sample_rate)
    online.input_finished()
    return online.read()


def resample(waveform: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    """A whole waveform (N,) at another rate, as the stream converts it. Raises InputError."""
    if from_hz == to_hz:
        return waveform
    resampler = Resampler(from_hz, to_hz)
    resampled: FloatArray = np.concatenate((resampler.process(waveform), resampler.flush()))
    return resampled


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
    """`value` as `kind` (int as float, a list as tuple, nothing else). Raises InputError."""
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, item, get_args(kind)[0]) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"frontend {name} is {value!r}; allowed: a value of type {kind.__name__}")
    return value


@contextmanager
def input_errors(subject: str) -> Iterator[None]:
    """What the C++ core refuses, as the error that commands report."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(str(error)) from None
    except TypeError:
        raise InputError(f"{subject}: a value of the wrong type or size; see help({__name__})") from None
