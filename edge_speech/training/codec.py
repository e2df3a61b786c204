"""What a line does to speech: G.711, a lossy codec, the telephone's band. Length and timing stay."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import resample
from edge_speech.training.reverb import convolve

TELEPHONE_HZ, TELEPHONE_BAND_HZ = 8000, (300.0, 3400.0)
_FILTER_S = 0.03  # a Hamming window this long falls from pass to stop band within about 110 Hz
_BLOCK = 1 << 14  # libsndfile's Vorbis encoder overruns its stack on long writes
_OPUS_HZ = (8000, 12000, 16000, 24000, 48000)
# libsndfile's compression levels: at 16 kHz Vorbis of about 48 to 27 kbit/s, Opus of about 45 to 7.
_LEVELS = {"vorbis": (0.5, 1.0), "opus": (0.85, 1.0)}


def check_codecs(codecs: tuple[str, ...], sample_rate: int) -> None:
    """Raise InputError where a codec does not take the front end's rate."""
    if "opus" in codecs and sample_rate not in _OPUS_HZ:
        allowed = ", ".join(map(str, _OPUS_HZ))
        raise InputError(
            f"recipe: augment.codecs has opus, which takes {allowed} Hz, not the front end's {sample_rate}; "
            "use vorbis"
        )


def check_telephone(sample_rate: int) -> None:
    """Raise InputError where the front end hears less than a telephone transmits."""
    if sample_rate < TELEPHONE_HZ:
        raise InputError(
            f"recipe: augment.telephone_probability needs a front end of {TELEPHONE_HZ} Hz or more, "
            f"not {sample_rate}; set it to 0"
        )


def code(rng: np.random.Generator, waveform: FloatArray, sample_rate: int, codec: str) -> FloatArray:
    """Encode and decode a waveform (N,): "mu-law", "a-law", or "vorbis" or "opus" at a drawn bit rate."""
    if codec == "mu-law":
        return g711(waveform, _mu_law())
    if codec == "a-law":
        return g711(waveform, _a_law())
    return _through_ogg(waveform, sample_rate, codec, float(rng.uniform(*_LEVELS[codec])))


def telephone(waveform: FloatArray, sample_rate: int) -> FloatArray:
    """A waveform (N,) after a telephone line: 300 to 3400 Hz, 8000 samples a second, µ-law."""
    line = g711(resample(_band_limited(waveform, sample_rate), sample_rate, TELEPHONE_HZ), _mu_law())
    return resample(line, TELEPHONE_HZ, sample_rate)[: len(waveform)]


def g711(waveform: FloatArray, law: FloatArray) -> FloatArray:
    """What comes out of the companding `law` (65536,): its answer to each 16-bit sample, from the lowest."""
    samples = np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767).astype(np.int32)
    heard: FloatArray = law[samples + 32768]
    return heard


@cache
def _mu_law() -> FloatArray:
    """ITU-T G.711 µ-law: 14-bit magnitudes with a bias of 33 in 8 segments of 16 steps."""
    magnitude = np.minimum(_magnitudes(2), 8158) + 33
    shift = np.frexp(magnitude)[1] - 5  # the segment's step is 2 ** shift
    return _signed((((magnitude >> shift) << shift) + (1 << (shift - 1)) - 33) << 2)


@cache
def _a_law() -> FloatArray:
    """ITU-T G.711 A-law: 13-bit magnitudes in 8 segments of 16 steps, the first two alike."""
    magnitude = np.minimum(_magnitudes(3), 4095)
    shift = np.maximum(np.frexp(magnitude)[1] - 5, 1)
    return _signed((((magnitude >> shift) << shift) + (1 << (shift - 1))) << 3)


def _magnitudes(dropped_bits: int) -> npt.NDArray[np.int64]:
    """Of every 16-bit sample, from the lowest, without its last bits."""
    return np.abs(np.arange(-32768, 32768)) >> dropped_bits


def _signed(magnitude: npt.NDArray[np.int64]) -> FloatArray:
    sign = np.where(np.arange(-32768, 32768) < 0, -1, 1)
    signed: FloatArray = (sign * magnitude / 32768).astype(np.float32)
    return signed


def _through_ogg(waveform: FloatArray, sample_rate: int, codec: str, level: float) -> FloatArray:
    """Ogg in memory; the container keeps the length and libsndfile takes the codec's delay out."""
    import soundfile

    stored: Any = io.BytesIO()
    form = {"format": "OGG", "subtype": codec.upper(), "compression_level": level}
    with soundfile.SoundFile(stored, "w", samplerate=sample_rate, channels=1, **form) as file:
        for start in range(0, len(waveform), _BLOCK):
            file.write(waveform[start : start + _BLOCK])
    stored.seek(0)
    decoded: FloatArray = soundfile.read(stored, dtype="float32")[0]
    assert len(decoded) == len(waveform)
    return decoded


def _band_limited(waveform: FloatArray, sample_rate: int) -> FloatArray:
    taps = _band_pass(sample_rate)
    delay = len(taps) // 2
    return convolve(waveform, taps)[delay : delay + len(waveform)]


@cache
def _band_pass(sample_rate: int) -> FloatArray:
    """Linear-phase FIR filter of the telephone's band: a windowed difference of two sinc functions."""
    count = round(_FILTER_S * sample_rate) | 1
    place = np.arange(count) - count // 2
    low, high = (2 * edge / sample_rate for edge in TELEPHONE_BAND_HZ)
    ideal = high * np.sinc(high * place) - low * np.sinc(low * place)
    taps: FloatArray = (ideal * np.hamming(count)).astype(np.float32)
    return taps
