"""Audio in: every WAV encoding against soundfile, pipes in any pieces, and what is refused."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.audio import read_audio, read_length
from edge_speech.errors import InputError
from edge_speech.live import read_microphone, read_pipe
from tiny import speech_like, write_wav

INTS = (speech_like(0.5) * 32767).astype(np.int16)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_encodings_equal_soundfile(tmp_path: Path, subtype: str, form: str) -> None:
    soundfile.write(tmp_path / "a.wav", speech_like(0.5), 22050, subtype=subtype, format=form)
    samples, sample_rate = read_audio(tmp_path / "a.wav")
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert sample_rate == 22050
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, expected, atol=1e-7)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "OPUS")])
def test_other_formats(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, speech_like(0.5), 16000, subtype=subtype)
    samples, sample_rate = read_audio(tmp_path / name)
    assert (len(samples), sample_rate) == (8000, 16000)


def test_wav_needs_no_soundfile_and_others_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.flac", speech_like(0.5), 16000)
    write_wav(tmp_path / "a.wav", INTS)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert len(read_audio(tmp_path / "a.wav")[0]) == len(INTS)
    with pytest.raises(InputError, match=r"edge-speech\[audio\]"):
        read_audio(tmp_path / "a.flac")


def test_unknown_length_and_other_chunks(tmp_path: Path) -> None:
    content = bytearray(write_wav(tmp_path / "a.wav", INTS).read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = b"\xff" * 4
    listed = content[:at] + b"LIST\x03\x00\x00\x00abc\x00" + content[at:]
    (tmp_path / "b.wav").write_bytes(listed)
    np.testing.assert_array_equal(read_audio(tmp_path / "b.wav")[0] * 32768, INTS)


def damaged(path: Path, kind: str) -> Path:
    content = write_wav(path, INTS).read_bytes()
    broken = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(5000),
        "text": b"this is no audio\n",
        "header only": content[:44],
        "half a header": content[:30],
        "cut off": content[:-1000],
        "no format": content[:12] + content[36:],
        "odd codec": content[:20] + b"\x55\x00" + content[22:],
    }
    path.write_bytes(broken[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("empty", "empty file"),
        ("noise", "not readable audio"),
        ("text", "not readable audio"),
        ("header only", "cut off"),
        ("half a header", "cut off"),
        ("cut off", "cut off"),
        ("no format", "format chunk"),
        ("odd codec", "not readable audio"),
    ],
)
def test_damaged_files(tmp_path: Path, kind: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_audio(damaged(tmp_path / "a.wav", kind))
    assert "\n" not in str(caught.value)


def test_cut_off_flac(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", speech_like(2), 16000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut off|not readable"):
        read_audio(tmp_path / "a.flac")


def test_a_flac_header_that_claims_a_terabyte(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", speech_like(0.2), 16000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F  # the upper bits of STREAMINFO's number of samples
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(InputError, match=r"cut off|not readable"):
        read_audio(tmp_path / "a.flac")


def test_what_is_not_mono_finite_or_in_range(tmp_path: Path) -> None:
    for name, match in [("gone.wav", "No such file"), (".", "directory")]:
        with pytest.raises(InputError, match=match):
            read_audio(tmp_path / name)
    with pytest.raises(InputError, match=r"2 channels.*-ac 1"):
        read_audio(write_wav(tmp_path / "a.wav", INTS, channels=2))
    with pytest.raises(InputError, match="no samples"):
        read_audio(write_wav(tmp_path / "b.wav", INTS[:0]))
    for rate in (3999, 192001):
        with pytest.raises(InputError, match="4000 to 192000"):
            read_audio(write_wav(tmp_path / "c.wav", INTS, rate))
    for bad in (np.nan, np.inf):
        soundfile.write(tmp_path / "d.wav", np.array([0, bad, 0], np.float32), 16000, subtype="FLOAT")
        with pytest.raises(InputError, match="NaN or inf"):
            read_audio(tmp_path / "d.wav")


class Pipe:
    """Gives at most `sizes[i]` bytes at a time."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self.content, self.sizes = io.BytesIO(content), sizes

    def read1(self, limit: int) -> bytes:
        size = self.sizes.pop(0) if self.sizes else limit
        return self.content.read(min(size, limit))

    read = read1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=30), st.sampled_from(["raw", "wav", "streamed wav"]))
def test_pipes_in_any_pieces(tmp_path_factory, sizes: list[int], kind: str) -> None:
    content = INTS.astype("<i2").tobytes()
    if kind != "raw":
        content = write_wav(tmp_path_factory.mktemp("pipe") / "a.wav", INTS, 8000).read_bytes()
        if kind == "wav":
            content += b"LIST\x04\x00\x00\x00tail"  # must not be heard
        else:
            content = content[:40] + b"\xff" * 4 + content[44:]
    pieces = list(read_pipe(Pipe(content, sizes), 16000))
    assert {rate for _, rate in pieces} == {16000 if kind == "raw" else 8000}
    np.testing.assert_array_equal(np.concatenate([samples for samples, _ in pieces]) * 32768, INTS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c[:30], "header without samples"),
        (lambda c: c[:-10], "cut off"),
        (lambda c: c[:22] + b"\x02" + c[23:], "2 channels"),
        (lambda c: c[:20] + b"\x55" + c[21:], "not PCM"),
        (lambda c: c[:24] + b"\x01\x00\x00\x00" + c[28:], "4000 to 192000"),
    ],
)
def test_odd_pipes(tmp_path: Path, change, match: str) -> None:
    content = change(write_wav(tmp_path / "a.wav", INTS).read_bytes())
    with pytest.raises(InputError, match=match):
        list(read_pipe(io.BytesIO(content), 16000))


@pytest.mark.parametrize("magic", [b"fLaC", b"OggS", b"ID3"])
def test_compressed_pipes_are_not_heard_as_noise(magic: bytes) -> None:
    with pytest.raises(InputError, match="pipe WAV or samples"):
        list(read_pipe(io.BytesIO(magic + bytes(100)), 16000))


def test_empty_pipe_and_half_a_sample() -> None:
    assert list(read_pipe(io.BytesIO(b""), 16000)) == []
    ((samples, _),) = read_pipe(io.BytesIO(b"\x00\x40\x01"), 16000)
    assert samples.tolist() == [0.5]


def test_microphone_without_sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match="pip install sounddevice"):
        next(read_microphone(16000, 100))


def test_microphone_through_a_double(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        PortAudioError = OSError

        class InputStream:
            def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
                assert (samplerate, channels, dtype) == (16000, 1, "float32")

            def __enter__(self):
                return self

            def __exit__(self, *error: object) -> None: ...

            def read(self, count: int):
                return np.full((count, 1), 0.25, np.float32), False

    monkeypatch.setitem(sys.modules, "sounddevice", Device)
    samples, sample_rate = next(read_microphone(16000, 100))
    assert (samples.tolist(), sample_rate) == ([0.25] * 1600, 16000)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "ULAW"), ("a.flac", "PCM_16")])
@pytest.mark.parametrize(("start_s", "duration_s"), [(0.0, 0.1), (0.25, None), (0.1, 0.2), (0.3, 0.6)])
def test_a_part_is_cut_out_of_the_whole(
    tmp_path: Path, name: str, subtype: str, start_s: float, duration_s: float | None
) -> None:
    soundfile.write(tmp_path / name, speech_like(0.5), 16000, subtype=subtype)
    whole, _ = read_audio(tmp_path / name)
    start = round(start_s * 16000)
    end = len(whole) if duration_s is None else start + round(duration_s * 16000)
    np.testing.assert_array_equal(read_audio(tmp_path / name, start_s, duration_s)[0], whole[start:end])


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_part_that_is_not_there(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, speech_like(0.5), 16000)
    for start_s, duration_s in ((0.6, None), (0.2, 1.0)):
        with pytest.raises(InputError, match=r"0\.50 s long, but samples from 0\.[26]0 to"):
            read_audio(tmp_path / name, start_s, duration_s)
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / name, 0.5)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_24"), ("a.wav", "ULAW"), ("a.flac", "PCM_16")])
def test_lengths_come_from_the_header(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, speech_like(0.5), 16000, subtype=subtype)
    assert read_length(tmp_path / name) == (8000, 16000)
    with pytest.raises(InputError, match="cannot be read"):
        read_length(tmp_path / "gone.wav")
