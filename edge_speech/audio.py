"""Audio files → float32 mono. PCM and float WAV are read here, everything else by soundfile."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4000, 192_000

_BLOCK = 1 << 18
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_OVERSHOOT_S = 0.5
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


@dataclass(frozen=True)
class _Part:
    """What is wanted of a file, in seconds; without a duration all that follows."""

    start_s: float
    duration_s: float | None

    def of(self, length: int, sample_rate: int, where: str) -> tuple[int, int]:
        """First sample and the one after the last. Raises InputError when the file ends too early."""
        start = round(self.start_s * sample_rate)
        end = length if self.duration_s is None else start + round(self.duration_s * sample_rate)
        if start > length or end > length + _OVERSHOOT_S * sample_rate:
            raise InputError(
                f"{where}: {length / sample_rate:.2f} s long, but samples from {start / sample_rate:.2f} to "
                f"{end / sample_rate:.2f} s are asked for; correct the times"
            )
        return start, min(end, length)


def read_audio(
    path: Path | str, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[FloatArray, int]:
    """Samples (N,) in [-1, 1] and their rate in Hz, of the whole file or of a part of it.

    A part may reach half a second beyond the end, as in Kaldi's extract-segments, and is cut there.
    Raises InputError on a part that is not there, on a file that is missing, empty, cut off, not audio, not
    mono, or that holds NaN or infinity, and on a rate outside 4 to 192 kHz.
    """
    path = Path(path)
    samples, sample_rate = _read(path, _Part(start_s, duration_s))
    return _checked(samples, sample_rate, str(path))


def _checked(samples: FloatArray, sample_rate: int, where: str) -> tuple[FloatArray, int]:
    check_rate(sample_rate, where)
    if not samples.size:
        raise InputError(f"{where}: holds no samples; give a recording")
    if not np.isfinite(samples).all():
        raise InputError(f"{where}: holds NaN or infinite samples; export it again as 16-bit PCM")
    return samples, sample_rate


def decode_audio(content: bytes, where: str) -> tuple[FloatArray, int]:
    """Samples (N,) in [-1, 1] and their rate in Hz of a file's content. Raises InputError as `read_audio`."""
    with _opened_with_soundfile(Path(where), io.BytesIO(content)) as file:
        samples, sample_rate = _read_with_soundfile(file, Path(where), _Part(0.0, None))
    return _checked(samples, sample_rate, where)


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


def read_length(path: Path | str) -> tuple[int, int]:
    """Samples in each channel of a file and their rate in Hz, as its header says. Raises InputError."""
    path = Path(path)
    with _opened_wav(path) as content:
        wav = None if content is None else parse_wav_header(content, str(path))
        if wav is not None and wav.is_plain and content is not None:
            data_bytes = len(content) - wav.data_offset if wav.data_bytes is None else wav.data_bytes
            return data_bytes // (wav.channels * wav.bits // 8), wav.sample_rate
    with _opened_with_soundfile(path) as file:
        return int(file.frames), int(file.samplerate)


def _read(path: Path, part: _Part) -> tuple[FloatArray, int]:
    with _opened_wav(path) as content:
        wav = None if content is None else parse_wav_header(content, str(path))
        if wav is not None and wav.is_plain and content is not None:
            return _decode_wav(wav, content, path, part)
    with _opened_with_soundfile(path) as file:
        return _read_with_soundfile(file, path, part)


@contextmanager
def _opened_wav(path: Path) -> Iterator[mmap.mmap | None]:
    """The bytes of a WAV file; None when the file is of another kind. Raises InputError."""
    if path.is_dir():
        raise InputError(f"{path}: a directory; give an audio file")
    try:
        content = _mapped(path) if _starts_as_wav(path) else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an audio file") from None
    with content or nullcontext():
        yield content


def _mapped(path: Path) -> mmap.mmap:
    """A file of which only what is asked for is read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _starts_as_wav(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        raise InputError(f"{path}: an empty file; give a recording")
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def _decode_wav(wav: WavFormat, content: mmap.mmap, path: Path, part: _Part) -> tuple[FloatArray, int]:
    check_mono(wav.channels, str(path))
    data_bytes = held = len(content) - wav.data_offset
    if wav.data_bytes is not None:
        if held < wav.data_bytes:
            raise InputError(
                f"{path}: cut off, {held} of {wav.data_bytes} bytes of samples; copy the file again"
            )
        data_bytes = wav.data_bytes
    width = wav.bits // 8
    start, end = part.of(data_bytes // width, wav.sample_rate, str(path))
    data = content[wav.data_offset + start * width : wav.data_offset + end * width]
    return decode_samples(wav, data), wav.sample_rate


@contextmanager
def _opened_with_soundfile(path: Path, content: io.BytesIO | None = None) -> Iterator[Any]:
    """A soundfile.SoundFile. Raises InputError on what it cannot open, and on what fails while it is open."""
    try:
        import soundfile
    except (ImportError, OSError):
        raise InputError(
            f"{path}: reading anything but PCM WAV needs soundfile; "
            'install it with `pip install "edge-speech[audio]"` or convert the file to WAV'
        ) from None
    try:
        with soundfile.SoundFile(content or str(path)) as file:
            yield file
    except soundfile.SoundFileError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip(" .")
        raise InputError(f"{path}: not readable audio ({reason}); give WAV, FLAC or Ogg") from None


def _read_with_soundfile(file: Any, path: Path, part: _Part) -> tuple[FloatArray, int]:
    check_mono(file.channels, str(path))
    frames, sample_rate = file.frames, int(file.samplerate)
    start, end = part.of(frames, sample_rate, str(path))
    if start:
        file.seek(start)
    samples = _read_blocks(file, end - start)
    if len(samples) < end - start:
        raise InputError(f"{path}: cut off, {len(samples)} of {end - start} samples; copy the file again")
    return samples, sample_rate


def _read_blocks(file: Any, count: int) -> FloatArray:
    """The next samples, block by block: a header may claim more than memory holds."""
    blocks = [np.zeros(0, np.float32)]
    while count and len(block := file.read(min(_BLOCK, count), dtype="float32")):
        blocks.append(block)
        count -= len(block)
    return np.concatenate(blocks)


# -- WAV: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html ---------------------------


def parse_wav_header(content: bytes | mmap.mmap, where: str) -> WavFormat:
    """Header of a WAV file of which `content` is the beginning. Raises InputError."""
    wav = find_wav_data(content, where)
    if wav is None:
        raise InputError(f"{where}: a WAV file without samples, it is cut off; copy the file again")
    return wav


def find_wav_data(content: bytes | mmap.mmap, where: str) -> WavFormat | None:
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
