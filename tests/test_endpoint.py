"""Where utterances end: on the shipped clips and on tones, in any cutting, with and without a VAD."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_speech as es
import oracles
from edge_speech import cli
from edge_speech.endpoint import EndpointConfig
from edge_speech.errors import InputError
from edge_speech.features import FloatArray, frontend_from_dict
from edge_speech.recognizer import Recognizer, Result, Stream
from edge_speech.training.checkpoint import load_model
from edge_speech.vad import EnergyVad, Vad, VadConfig
from edge_speech_tools.reference import TorchEncoder, single_thread
from loud import RATE, beeps, loud_recognizer
from recorded import Recorded
from tiny import write_wav

RULES = EndpointConfig(min_trailing_silence_ms=400, no_speech_timeout_ms=2000, max_utterance_ms=4000)
BEEPS = [(0.3, 0.5), (0.7, 0.9), (2.0, 2.2), (5.1, 5.2), (6.5, 11.8)]


@dataclass(frozen=True)
class Clips:
    """The shipped clips with a second of silence after each, and what the digits model says about them."""

    waveform: FloatArray
    sample_rate: int
    recognizer: Recognizer
    begins: list[float]
    alone: list[Recognizer]
    lengths: list[int]

    def samples(self, i: int) -> FloatArray:
        return self.waveform[round(self.begins[i] * self.sample_rate) :][: self.lengths[i]]


def recorded(recognizer: Recognizer, samples: FloatArray, rate: int) -> Recognizer:
    stream = recognizer.create_stream(keep_log_probs=True)
    with single_thread():
        stream.accept_waveform(samples, rate)
        stream.input_finished()
    encoder = Recorded(recognizer.encoder.spec, stream.log_probs())
    return Recognizer(encoder, recognizer.frontend, recognizer.tokens)


@pytest.fixture(scope="module")
def clips(digits: Path) -> Clips:
    loaded = load_model(digits / "model.pt")
    encoder = TorchEncoder(loaded.model, loaded.model.spec)
    recognizer = Recognizer(encoder, frontend_from_dict(loaded.frontend), loaded.tokens)
    read = [oracles.read_clip(path) for path in oracles.CLIPS]
    rate, alone = read[0][1], [samples for samples, _ in read]
    silence = np.zeros(rate, np.float32)
    waveform = np.concatenate([part for samples in alone for part in (samples, silence)])
    begins = np.cumsum([0, *(len(samples) + rate for samples in alone[:-1])]) / rate
    return Clips(
        waveform,
        rate,
        recorded(recognizer, waveform, rate),
        begins.tolist(),
        [recorded(recognizer, samples, rate) for samples in alone],
        [len(samples) for samples in alone],
    )


def run(
    recognizer: Recognizer, pieces: list[FloatArray], rate: int = RATE, **options: Any
) -> tuple[Result, ...]:
    """The segments, read after every piece."""
    stream, segments = recognizer.create_stream(**options), []
    for piece in pieces:
        stream.accept_waveform(piece, rate)
        segments += stream.read_segments()
    stream.input_finished()
    return (*segments, *stream.read_segments())


def energy() -> EnergyVad:
    return EnergyVad(VadConfig(sample_rate=RATE))


@pytest.mark.parametrize(
    ("beam_size", "silence_ms", "with_vad"),
    [(1, 1200, False), (8, 1200, False), (1, 800, True), (8, 800, True)],
)
def test_clips_with_silence_between_are_utterances(
    clips: Clips, beam_size: int, silence_ms: float, with_vad: bool
) -> None:
    """The texts of the clips alone, at their times; none ends within a clip. With a VAD 800 ms are enough."""
    vad = EnergyVad(VadConfig(sample_rate=clips.recognizer.frontend.sample_rate)) if with_vad else None
    rules = EndpointConfig(min_trailing_silence_ms=silence_ms)
    options = {"endpoint": rules, "vad": vad, "beam_size": beam_size}
    segments = run(clips.recognizer, np.array_split(clips.waveform, 50), clips.sample_rate, **options)
    for i, segment in enumerate(segments):
        (expected,) = run(clips.alone[i], [clips.samples(i)], clips.sample_rate, **options)
        assert expected.endpoint == "input_finished"
        assert segment.text == expected.text
        assert [w.text for w in segment.words] == expected.text.split()
        assert segment.start_s - clips.begins[i] == pytest.approx(expected.start_s, abs=0.08)
        assert segment.end_s - clips.begins[i] == pytest.approx(expected.end_s, abs=0.08)
    assert len(segments) == len(clips.alone)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_rules_and_times(beam_size: int) -> None:
    segments = run(loud_recognizer(), [beeps(BEEPS, 12.0)], endpoint=RULES, beam_size=beam_size)
    assert [s.endpoint for s in segments] == [
        *["trailing_silence", "trailing_silence", "no_speech", "trailing_silence"],
        "max_utterance",
    ]
    assert [len(s.tokens) > 0 for s in segments] == [True, True, False, True, True]
    for segment, (start_s, end_s) in zip(segments, [(0.3, 0.9), (2.0, 2.2)], strict=False):
        assert segment.start_s == pytest.approx(start_s, abs=0.06)
        assert segment.end_s == pytest.approx(end_s, abs=0.06)
        assert segment.endpoint_s == pytest.approx(segment.end_s + 0.4)
    assert segments[2].endpoint_s == pytest.approx(segments[1].endpoint_s + 2.0)
    assert (segments[2].start_s, segments[2].end_s) == (segments[1].endpoint_s, segments[2].endpoint_s)


def test_long_speech_is_cut_between_tokens() -> None:
    rules = EndpointConfig(max_utterance_ms=1000)
    times = [(0.2 * i, 0.2 * i + 0.1) for i in range(40)]
    segments = run(loud_recognizer(), [beeps(times, 8.2)], endpoint=rules)
    assert {s.endpoint for s in segments[:-1]} == {"max_utterance"}
    assert sum(len(s.tokens) for s in segments) == 40
    assert all(1.0 <= s.endpoint_s - s.start_s < 1.1 for s in segments[:-1])


class LoudnessVad:
    """The protocol in a few lines of Python: frames of 25 ms, speech where anything is above 0.01."""

    frame_ms = 25.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.samples, self.taken = np.zeros(0, np.float32), 0

    def accept_waveform(self, samples: FloatArray, sample_rate: int) -> None:
        assert sample_rate == RATE
        self.samples = np.append(self.samples, samples)

    def read(self) -> np.ndarray:
        frames = self.samples[self.taken : len(self.samples) // 400 * 400].reshape(-1, 400)
        self.taken += frames.size
        return np.abs(frames).max(axis=1, initial=0.0) > 0.01


VADS = {"none": lambda: None, "energy": energy, "python": LoudnessVad}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 12 * RATE), max_size=30),
    st.sampled_from([1, 4]),
    st.sampled_from(list(VADS)),
    st.sampled_from([16000, 8000, 48000]),
)
def test_any_cutting_ends_them_at_the_same_rows(cuts: list[int], beam_size: int, vad: str, rate: int) -> None:
    waveform, recognizer = beeps(BEEPS, 12.0), loud_recognizer()
    options = {"endpoint": RULES, "beam_size": beam_size}
    whole = run(recognizer, [waveform], rate, vad=VADS[vad](), **options)
    assert len(whole) >= 2
    assert run(recognizer, np.split(waveform, sorted(cuts)), rate, vad=VADS[vad](), **options) == whole


@pytest.mark.parametrize("vad", [energy, LoudnessVad])
def test_a_vad_that_hears_speech_holds_the_end_off(vad: Any) -> None:
    """A hum that says no token goes on for a second after the beep."""
    waveform = beeps([(0.3, 0.5)], 4.0)
    waveform[RATE // 2 : RATE * 3 // 2] += beeps([(0.0, 1.0)], 1.0, 90.0) * np.float32(0.15)
    alone, joined = (run(loud_recognizer(), [waveform], endpoint=RULES, vad=v)[0] for v in (None, vad()))
    assert alone.text == joined.text
    assert alone.endpoint_s < 1.1
    assert joined.endpoint_s > 1.5 + 0.4 - 0.06


def test_result_is_of_the_utterance_being_said() -> None:
    """`endpoint` tells that one has ended; what follows in the packet is already the next one's."""
    stream, waveform = loud_recognizer().create_stream(endpoint=RULES), beeps([(0.3, 0.5), (1.5, 2.5)], 2.4)
    stream.accept_waveform(waveform[:12800], RATE)
    assert stream.result.text
    assert not stream.endpoint
    stream.accept_waveform(waveform[12800:], RATE)
    assert stream.endpoint
    assert stream.result.start_s == pytest.approx(1.5, abs=0.06)
    assert not stream.result.is_final
    (first,) = stream.read_segments()
    assert (stream.endpoint, stream.read_segments()) == (False, ())
    assert first.end_s == pytest.approx(0.5, abs=0.06)
    stream.input_finished()
    (last,) = stream.read_segments()
    assert last.endpoint == "input_finished"
    assert last.tokens == stream.result.tokens
    stream.reset()
    assert (stream.read_segments(), stream.result.tokens, stream.result.start_s) == ((), (), 0.0)
    again = run_stream(stream, waveform)
    assert again == (first, last)


def run_stream(stream: Stream, waveform: FloatArray) -> tuple[Result, ...]:
    stream.accept_waveform(waveform, RATE)
    stream.input_finished()
    return stream.read_segments()


def test_a_hotword_is_found_in_every_utterance() -> None:
    beep = beeps([(0.3, 0.5)], 2.0)
    said = run(loud_recognizer(), [beep], endpoint=RULES)[0].text
    segments = run(loud_recognizer(), [beep] * 3, endpoint=RULES, hotwords=[said])
    found = [segment.hotwords[0] for segment in segments if segment.text]
    assert [h.text for h in found] == [said] * 3
    assert [h.start_s for h in found] == pytest.approx([found[0].start_s + 2.0 * i for i in range(3)])


def test_nan_ends_nothing() -> None:
    stream, waveform = loud_recognizer().create_stream(endpoint=RULES, vad=energy()), beeps(BEEPS, 12.0)
    expected = run_stream(stream, waveform)
    stream.reset()
    stream.accept_waveform(waveform[:40000], RATE)
    with pytest.raises(InputError, match="NaN"):
        stream.accept_waveform(np.append(waveform, np.nan), RATE)
    assert run_stream(stream, waveform[40000:]) == expected


class OddVad(LoudnessVad):
    """Does something else than it should once it has heard a second."""

    def __init__(self, action: str) -> None:
        self.action = action
        super().__init__()

    def read(self) -> Any:
        decisions = super().read()
        if self.taken < RATE:
            return decisions
        return {"raise": lambda: 1 // 0, "none": lambda: None, "few": lambda: decisions[1:]}[self.action]()


@pytest.mark.parametrize(
    ("action", "error", "match"),
    [
        ("raise", ZeroDivisionError, "zero"),
        ("none", TypeError, "NoneType"),
        ("few", InputError, "one for each whole"),
    ],
)
def test_odd_vads(action: str, error: type[Exception], match: str) -> None:
    stream = loud_recognizer().create_stream(endpoint=RULES, vad=OddVad(action))
    with pytest.raises(error, match=match):
        stream.accept_waveform(beeps([], 3.0), RATE)
    with pytest.raises(InputError, match=r"reset\(\)"):
        stream.accept_waveform(beeps([], 1.0), RATE)
    stream.reset()
    stream.accept_waveform(beeps([], 0.5), RATE)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"endpoint": RULES, "vad": object()}, "without frame_ms, accept_waveform, read, reset"),
        ({"vad": LoudnessVad()}, "add endpoint="),
        ({"endpoint": True}, "an EndpointConfig"),
    ],
)
def test_parts_that_do_not_fit(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        loud_recognizer().create_stream(**options)


def test_a_vad_for_another_rate_is_refused() -> None:
    with pytest.raises(InputError, match="sample_rate is 16000; allowed: 8000"):
        loud_recognizer().create_stream(endpoint=RULES, vad=EnergyVad(VadConfig(8000)))


@pytest.mark.parametrize("name", asdict(EndpointConfig()))
@pytest.mark.parametrize("value", [-1.0, math.nan, "long", True])
def test_bad_rules_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        loud_recognizer().create_stream(endpoint=EndpointConfig(**{name: value}))


def test_a_stream_without_endpoints_has_no_segments() -> None:
    stream = loud_recognizer().create_stream()
    stream.accept_waveform(beeps(BEEPS, 12.0), RATE)
    assert not stream.endpoint
    with pytest.raises(InputError, match="EndpointConfig"):
        stream.read_segments()


def test_rules_that_are_off() -> None:
    never = EndpointConfig(math.inf, math.inf, math.inf)
    (segment,) = run(loud_recognizer(), [beeps(BEEPS, 12.0)], endpoint=never)
    assert segment.endpoint == "input_finished"


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A bundle's place, at which the command finds the loudness encoder; beside it two files."""
    monkeypatch.setattr("edge_speech.recognizer.Recognizer.load", lambda *_: loud_recognizer())
    for name, times in (("a.wav", BEEPS), ("b.wav", [(0.2, 0.4)])):
        write_wav(tmp_path / name, (beeps(times, 12.0) * 32767).astype(np.int16))
    return tmp_path


def transcribe(*words: object, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["transcribe", "bundle", *map(str, words)]) == 0
    return capsys.readouterr().out


OPTIONS = "--endpoint-silence-ms", "400"


def test_transcribe_prints_a_line_per_utterance(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = transcribe(bundle / "a.wav", *OPTIONS, capsys=capsys).splitlines()
    assert len(lines) == 4
    start_s, end_s, text = lines[1].split(maxsplit=2)
    assert (float(start_s), float(end_s)) == pytest.approx((2.0, 2.2), abs=0.06)
    assert text
    both = transcribe(bundle / "a.wav", bundle / "b.wav", *OPTIONS, capsys=capsys).splitlines()
    assert both[:4] == [f"{bundle / 'a.wav'}: {line}" for line in lines]
    assert len(both) == 5
    assert len(transcribe(bundle / "a.wav", "--endpoint", capsys=capsys).splitlines()) == 3


def test_transcribe_json_has_segments(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = bundle / "a.wav", "--json", "--quiet"
    (plain,) = json.loads(transcribe(*words, capsys=capsys))
    (cut,) = json.loads(transcribe(*words, *OPTIONS, "--endpoint-vad", "energy", capsys=capsys))
    assert cut["text"] == plain["text"] == " ".join(s["text"] for s in cut["segments"])
    assert [set(s) for s in cut["segments"]] == [{"text", "start_s", "end_s", "endpoint"}] * 4
    assert cut["tokens"] == plain["tokens"]
    assert cut["words"] == plain["words"]
    assert set(cut["words"][0]) == {"word", "start_s", "end_s", "confidence"}
    assert "segments" not in plain
    pipe = io.TextIOWrapper(io.BytesIO((bundle / "a.wav").read_bytes()))
    monkeypatch.setattr(sys, "stdin", pipe)
    (piped,) = json.loads(transcribe("-", *words[1:], *OPTIONS, "--endpoint-vad", "energy", capsys=capsys))
    assert piped["segments"] == cut["segments"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--endpoint-silence-ms", "0"), "--endpoint-silence-ms is 0"),
        (("--endpoint-silence-ms", "nan"), "--endpoint-silence-ms is nan"),
        (("--endpoint-vad", "nowhere.onnx"), "nowhere.onnx: onnxruntime cannot load it"),
    ],
)
def test_odd_options(
    words: tuple[str, ...], match: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["transcribe", "bundle", str(bundle / "a.wav"), *words]) == 2
    assert match in capsys.readouterr().err


def test_both_vads_are_vads() -> None:
    vads: list[Vad] = [energy(), LoudnessVad()]
    assert [vad.frame_ms for vad in vads] == [10.0, 25.0]
    assert es.EndpointConfig is EndpointConfig
