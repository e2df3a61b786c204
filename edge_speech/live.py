"""Audio that arrives while it is read: a pipe of PCM or WAV, or the microphone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from edge_speech.audio import WavFormat, check_mono, check_rate, decode_samples, find_wav_data
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError

_BLOCK_BYTES = 1 << 14
_HEADER_LIMIT = 1 << 20
_S16LE = 1, 16
_COMPRESSED = {b"fLaC": "a FLAC file", b"OggS": "an Ogg file", b"ID3": "an MP3 file"}


def read_pipe(pipe: BinaryIO, sample_rate: int) -> Iterator[tuple[FloatArray, int]]:
    """Pieces (samples (N,), rate) of a pipe as they arrive: a WAV stream, or s16le mono at `sample_rate`.

    Raises InputError on a WAV that is not mono PCM or float and on compressed files. A last partial sample is
    left out.
    """
    head = _read_at_least(pipe, 12)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        wav, head = _read_header(pipe, head)
    else:
        _refuse_compressed(head)
        wav = WavFormat(_S16LE[0], 1, sample_rate, _S16LE[1], 0, None)
    check_mono(wav.channels, "stdin")
    check_rate(wav.sample_rate, "stdin")
    for data in _whole_samples(_limited(pipe, head, wav.data_bytes), wav.bits // 8):
        yield decode_samples(wav, data), wav.sample_rate


def _refuse_compressed(head: bytes) -> None:
    """What begins like a compressed file would be heard as noise, were it taken for samples."""
    kind = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if kind:
        raise InputError(
            f"stdin: {kind}; pipe WAV or samples: `ffmpeg -i IN -f s16le -ac 1 -ar 16000 - | edge-speech "
            "transcribe BUNDLE -`, or give the file by name"
        )


def _read_at_least(pipe: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count and (block := _read_some(pipe)):
        data += block
    return data


def _read_some(pipe: BinaryIO) -> bytes:
    """What is there now, at least one byte unless the pipe has ended."""
    read = getattr(pipe, "read1", pipe.read)
    data: bytes = read(_BLOCK_BYTES)
    return data


def _read_header(pipe: BinaryIO, head: bytes) -> tuple[WavFormat, bytes]:
    """The format and the samples that came with it."""
    while (wav := find_wav_data(head, "stdin")) is None:
        block = _read_some(pipe)
        if not block or len(head) > _HEADER_LIMIT:
            raise InputError("stdin: a WAV header without samples; pipe a whole WAV file or s16le samples")
        head += block
    if not wav.is_plain:
        raise InputError("stdin: a WAV stream that is not PCM or float; convert it, for example with ffmpeg")
    return wav, head[wav.data_offset :]


def _limited(pipe: BinaryIO, head: bytes, limit: int | None) -> Iterator[bytes]:
    """`head`, then the pipe, up to `limit` bytes."""
    left = limit
    block = head or _read_some(pipe)
    while block and left != 0:
        block = block if left is None else block[:left]
        left = None if left is None else left - len(block)
        yield block
        block = _read_some(pipe) if left != 0 else b""
    if left:
        raise InputError(f"stdin: cut off, {left} bytes of samples fewer than its header says; send it again")


def _whole_samples(blocks: Iterator[bytes], width: int) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        data = rest + block
        whole = len(data) // width * width
        rest = data[whole:]
        if whole:
            yield data[:whole]


def read_microphone(sample_rate: int, piece_ms: float) -> Iterator[tuple[FloatArray, int]]:
    """Pieces of the default input device, until the caller stops. Raises InputError when there is none."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise InputError(
            f"--mic needs sounddevice ({error}); install it with `pip install sounddevice` "
            "or pipe audio: `arecord -f S16_LE -r 16000 -t raw | edge-speech transcribe BUNDLE -`"
        ) from None
    try:
        with sounddevice.InputStream(samplerate=sample_rate, channels=1, dtype="float32") as device:
            while True:
                samples, _ = device.read(max(1, round(piece_ms * sample_rate / 1000)))
                yield samples[:, 0].copy(), sample_rate
    except sounddevice.PortAudioError as error:
        raise InputError(
            f"--mic: the input device cannot be used ({error}); check `python -m sounddevice`"
        ) from None
