"""Audio files → float32 mono. PCM and float WAV are read here, everything else by soundfile."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4000, 192_000

_BLOCK = 1 << 18
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what programs write that stream a WAV


@dataclass(frozen=True)
class WavFormat:
    """What a WAV header says. `data_bytes` is None when the writer did not know the length."""

    encoding: int
    channels: int
    sample_rate: int
    bits: int
    data_offset: int
    data_bytes: int | None

    @property
    def is_plain(self) -> bool:
        """Whether `decode_samples` reads it: PCM of 8 to 32 bits, or floats."""
        return (self.encoding, self.bits) in _DECODERS


def read_audio(path: Path | str) -> tuple[FloatArray, int]:
    """Samples (N,) in [-1, 1] and their rate in Hz.

    Raises InputError on a file that is missing, empty, cut off, not audio, not mono, or that holds NaN or
    infinity, and on a rate outside 4 to 192 kHz.
    """
    path = Path(path)
    samples, sample_rate = _read(path)
    check_rate(sample_rate, str(path))
    if not samples.size:
        raise InputError(f"{path}: holds no samples; give a recording")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds NaN or infinite samples; export it again as 16-bit PCM")
    return samples, sample_rate


def check_rate(sample_rate: int, where: str) -> None:
    """Raise InputError on a rate the resampler does not take."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise InputError(
            f"{where}: sample rate {sample_rate} Hz; allowed: {LOWEST_RATE} to {HIGHEST_RATE}; resample it"
        )


def check_mono(channels: int, where: str) -> None:
    """Raise InputError unless there is one channel."""
    if channels != 1:
        raise InputError(
            f"{where}: {channels} channels; one is needed; mix down with `ffmpeg -i IN -ac 1 OUT.wav` "
            "or pick a channel"
        )


def _read(path: Path) -> tuple[FloatArray, int]:
    if path.is_dir():
        raise InputError(f"{path}: a directory; give an audio file")
    try:
        content = path.read_bytes() if _starts_as_wav(path) else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an audio file") from None
    if content is None:
        return _read_with_soundfile(path)
    wav = parse_wav_header(content, str(path))
    return _decode_wav(wav, content, path) if wav.is_plain else _read_with_soundfile(path)


def _starts_as_wav(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        raise InputError(f"{path}: an empty file; give a recording")
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def _decode_wav(wav: WavFormat, content: bytes, path: Path) -> tuple[FloatArray, int]:
    check_mono(wav.channels, str(path))
    data = content[wav.data_offset :]
    if wav.data_bytes is not None:
        if len(data) < wav.data_bytes:
            raise InputError(
                f"{path}: cut off, {len(data)} of {wav.data_bytes} bytes of samples; copy the file again"
            )
        data = data[: wav.data_bytes]
    return decode_samples(wav, data), wav.sample_rate


def _read_with_soundfile(path: Path) -> tuple[FloatArray, int]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise InputError(
            f"{path}: reading anything but PCM WAV needs soundfile; "
            'install it with `pip install "edge-speech[audio]"` or convert the file to WAV'
        ) from None
    try:
        with soundfile.SoundFile(str(path)) as file:
            check_mono(file.channels, str(path))
            samples = _read_blocks(file)
            frames, sample_rate = file.frames, int(file.samplerate)
    except soundfile.SoundFileError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip(" .")
        raise InputError(f"{path}: not readable audio ({reason}); give WAV, FLAC or Ogg") from None
    if len(samples) < frames:
        raise InputError(f"{path}: cut off, {len(samples)} of {frames} samples; copy the file again")
    return samples, sample_rate


def _read_blocks(file: Any) -> FloatArray:
    """All samples, block by block: a header may claim more than memory holds."""
    blocks = [np.zeros(0, np.float32)]
    while len(block := file.read(_BLOCK, dtype="float32")):
        blocks.append(block)
    return np.concatenate(blocks)


# -- WAV: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html ---------------------------


def parse_wav_header(content: bytes, where: str) -> WavFormat:
    """Header of a WAV file of which `content` is the beginning. Raises InputError."""
    wav = find_wav_data(content, where)
    if wav is None:
        raise InputError(f"{where}: a WAV file without samples, it is cut off; copy the file again")
    return wav


def find_wav_data(content: bytes, where: str) -> WavFormat | None:
    """The header once `content` reaches to the samples; None while it does not. Raises InputError."""
    position, form = 12, None
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"data":
            if form is None:
                raise InputError(f"{where}: a WAV file without a format chunk; export it again as PCM WAV")
            return WavFormat(*form, position, None if size in _UNKNOWN_SIZES else size)
        if name == b"fmt ":
            if position + size > len(content):
                return None
            form = _parse_format(content[position : position + size], where)
        position += size + size % 2
    return None


def _parse_format(chunk: bytes, where: str) -> tuple[int, int, int, int]:
    """(encoding, channels, sample_rate, bits) of a `fmt ` chunk."""
    if len(chunk) < 16:
        raise InputError(f"{where}: a damaged WAV header; export it again as PCM WAV")
    encoding, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if encoding == _EXTENSIBLE and len(chunk) >= 26:
        encoding = struct.unpack_from("<H", chunk, 24)[0]
    return encoding, channels, sample_rate, bits


def decode_samples(wav: WavFormat, data: bytes) -> FloatArray:
    """Whole samples of `data` as float32 in [-1, 1]; a last partial one is left out."""
    width = wav.bits // 8
    return _DECODERS[wav.encoding, wav.bits](data[: len(data) // width * width])


def _from_uint8(data: bytes) -> FloatArray:
    centred: FloatArray = np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)
    centred /= 128
    return centred


def _from_int16(data: bytes) -> FloatArray:
    samples: FloatArray = np.frombuffer(data, "<i2").astype(np.float32)
    samples /= 1 << 15
    return samples


def _from_int24(data: bytes) -> FloatArray:
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _from_int32(padded.tobytes())


def _from_int32(data: bytes) -> FloatArray:
    return (np.frombuffer(data, "<i4") / float(1 << 31)).astype(np.float32)


def _from_float32(data: bytes) -> FloatArray:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _from_float64(data: bytes) -> FloatArray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity and is refused
        return np.frombuffer(data, "<f8").astype(np.float32)


_DECODERS = {
    (_PCM, 8): _from_uint8,
    (_PCM, 16): _from_int16,
    (_PCM, 24): _from_int24,
    (_PCM, 32): _from_int32,
    (_FLOAT, 32): _from_float32,
    (_FLOAT, 64): _from_float64,
}
