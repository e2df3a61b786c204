"""The stream's laws, over a small encoder in numpy: any cutting, exact flush, reset, errors, times."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.errors import InputError
from edge_speech.features import OnlineFbank, frontend_from_dict
from edge_speech.recognizer import Recognizer, Stream
from tiny import FRONTEND, SPEC, TOKENS, TinyEncoder, TinyStream, log_softmax, speech_like

FBANK = frontend_from_dict(FRONTEND)


@pytest.fixture
def recognizer() -> Recognizer:
    return Recognizer(TinyEncoder(), FBANK, TOKENS)


def run(
    recognizer: Recognizer, pieces: list[np.ndarray], sample_rate: int = 16000, beam_size: int = 1
) -> Stream:
    stream = recognizer.create_stream(keep_log_probs=True, beam_size=beam_size)
    for piece in pieces:
        stream.accept_waveform(piece, sample_rate)
    stream.input_finished()
    return stream


def same(one: Stream, two: Stream) -> None:
    assert one.log_probs().tobytes() == two.log_probs().tobytes()
    assert one.result == two.result


def by_hand(waveform: np.ndarray) -> np.ndarray:
    """log_probs of the whole waveform: all features, padded, cut into windows by numpy."""
    fbank = OnlineFbank(FBANK)
    fbank.accept_waveform(waveform, 16000)
    fbank.input_finished()
    frames = fbank.read()
    steps = -(-len(frames) // SPEC.chunk_frames)
    padded = np.full(
        (steps * SPEC.chunk_frames + SPEC.right_context_frames, SPEC.num_features), SPEC.padding_value
    )
    padded[: len(frames)] = frames
    log_probs = np.zeros((SPEC.output_frames, SPEC.vocab_size), np.float32)
    window = np.zeros((SPEC.window_frames, SPEC.num_features), np.float32)
    encoder, rows = TinyStream(window, log_probs), []
    for i in range(0, steps * SPEC.chunk_frames, SPEC.chunk_frames):
        window[:] = padded[i : i + SPEC.window_frames]
        encoder.step()
        rows.append(log_probs.copy())
    return np.concatenate([*rows, log_probs[:0]])[: -(-len(frames) // SPEC.subsampling_factor)]


@pytest.mark.parametrize(
    "samples", [0, 1, 79, 80, 159, 160, 399, 400, 1279, 1280, 1281, 1760, 2560, 16000, 16077]
)
def test_equals_windows_cut_by_hand(recognizer: Recognizer, samples: int) -> None:
    waveform = speech_like(2)[:samples]
    stream = run(recognizer, [waveform])
    expected = by_hand(waveform)
    assert stream.log_probs().tobytes() == expected.tobytes()
    decoder = CtcGreedy(TOKENS)
    decoder.step(expected)
    assert stream.result.text == decoder.result().text
    assert stream.result.is_final


def test_the_double_is_not_trivial(recognizer: Recognizer) -> None:
    result = run(recognizer, [speech_like(10)]).result
    assert len(set(result.text.split())) >= 3


@pytest.mark.parametrize("sample_rate", [16000, 8000, 44100])
@pytest.mark.parametrize("piece_ms", [1, 20, 100, 160])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_equal_pieces(recognizer: Recognizer, sample_rate: int, piece_ms: int, beam_size: int) -> None:
    waveform = speech_like(3, sample_rate)
    size = sample_rate * piece_ms // 1000
    pieces = [waveform[i : i + size] for i in range(0, len(waveform), size)]
    cut, whole = (run(recognizer, p, sample_rate, beam_size) for p in (pieces, [waveform]))
    same(cut, whole)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 20_000),
    st.lists(st.integers(0, 20_000), max_size=12),
    st.sampled_from([4000, 8000, 11025, 16000, 22050, 48000, 96000]),
    st.booleans(),
)
def test_any_pieces(samples: int, cuts: list[int], sample_rate: int, as_int16: bool) -> None:
    recognizer = Recognizer(TinyEncoder(), FBANK, TOKENS)
    waveform = speech_like(5, 4000)[:samples]
    if as_int16:
        waveform = (waveform * 32767).astype(np.int16)
    pieces = np.split(waveform, sorted(min(c, samples) for c in cuts))
    same(run(recognizer, pieces, sample_rate), run(recognizer, [waveform], sample_rate))


def test_int16_equals_float(recognizer: Recognizer) -> None:
    ints = (speech_like(2) * 32767).astype(np.int16)
    same(run(recognizer, [ints]), run(recognizer, [ints.astype(np.float32) / 32768]))


def test_strided_and_float64_samples(recognizer: Recognizer) -> None:
    waveform = speech_like(1)
    same(run(recognizer, [np.repeat(waveform, 2)[::2].astype(np.float64)]), run(recognizer, [waveform]))


def test_reset_forgets_everything(recognizer: Recognizer) -> None:
    fresh = run(recognizer, [speech_like(1, 8000, seed=1)], 8000)
    used = run(recognizer, [speech_like(3)])
    used.reset()
    assert used.result.tokens == ()
    assert not used.result.is_final
    used.accept_waveform(speech_like(1, 8000, seed=1), 8000)  # another rate than before
    used.input_finished()
    same(used, fresh)
    used.reset()
    used.accept_waveform(speech_like(1, 8000, seed=1), 8000)
    used.input_finished()
    same(used, fresh)


@pytest.mark.parametrize("beam_size", [1, 3, 8])
def test_committed_text_is_never_taken_back(recognizer: Recognizer, beam_size: int) -> None:
    stream, waveform = recognizer.create_stream(beam_size=beam_size), speech_like(8)
    committed = [""]
    for i in range(0, len(waveform), 320):
        stream.accept_waveform(waveform[i : i + 320], 16000)
        assert stream.result.text.startswith(stream.result.committed_text)
        committed.append(stream.result.committed_text)
    stream.input_finished()
    assert stream.result.text
    assert stream.result.committed_text == stream.result.text
    assert all(stream.result.text.startswith(text) for text in committed)
    assert len(set(committed)) > 3


@pytest.mark.parametrize("beam_size", [2, 8])
def test_a_beam_stream_is_the_search_over_its_log_probs(recognizer: Recognizer, beam_size: int) -> None:
    """Results read on the way leave the final one alone, and it is that of es.CtcPrefixBeam."""
    stream, waveform = recognizer.create_stream(keep_log_probs=True, beam_size=beam_size), speech_like(10)
    for i in range(0, len(waveform), 800):
        stream.accept_waveform(waveform[i : i + 800], 16000)
        assert not stream.result.is_final
    stream.input_finished()
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(beam_size))
    decoder.step(stream.log_probs())
    expected, row_s = decoder.finish(), SPEC.subsampling_factor * 0.01
    assert stream.result.text == expected.text
    for token, other in zip(stream.result.tokens, expected.tokens, strict=True):
        assert (token.token, token.confidence) == (other.token, other.confidence)
        assert token.start_s == pytest.approx(other.start_row * row_s)
        assert token.end_s == pytest.approx(min(other.end_row * row_s, stream.audio_s))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_times_are_of_the_callers_audio(recognizer: Recognizer, sample_rate: int) -> None:
    stream = run(recognizer, [speech_like(2.345, sample_rate)], sample_rate)
    decoder = CtcGreedy(TOKENS)
    decoder.step(stream.log_probs())
    row_s = SPEC.subsampling_factor * 0.01
    assert stream.audio_s == pytest.approx(2.345)
    for token, expected in zip(stream.result.tokens, decoder.result().tokens, strict=True):
        assert token.start_s == pytest.approx(expected.start_row * row_s)
        assert token.end_s == pytest.approx(min(expected.end_row * row_s, 2.345))
        assert token.confidence == expected.confidence


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_odd_samples_consume_nothing(recognizer: Recognizer, bad: float) -> None:
    waveform, stream = speech_like(1), recognizer.create_stream(keep_log_probs=True)
    stream.accept_waveform(waveform, 16000)
    poisoned = np.append(waveform.astype(np.float64), bad)
    with pytest.raises(InputError, match="NaN or inf"):
        stream.accept_waveform(poisoned, 16000)
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    same(stream, run(recognizer, [waveform, waveform]))


def test_misuse_is_one_clear_line(recognizer: Recognizer) -> None:
    stream, waveform = recognizer.create_stream(), speech_like(0.1)
    for samples, rate, match in [
        (waveform, 3999, "4000 to 192000"),
        (waveform, 192001, "4000 to 192000"),
        (waveform, 0, "4000"),
        (waveform, 16000.5, "whole number"),
        (waveform, float("nan"), "whole number"),
        (waveform, "16000", "whole number"),
        (waveform, None, "whole number"),
        (waveform.reshape(2, -1), 16000, r"shape \(2,"),
        (waveform.astype(np.int32), 16000, "int32"),
    ]:
        with pytest.raises(InputError, match=match):
            stream.accept_waveform(samples, rate)
    stream.accept_waveform(waveform, 16000)
    with pytest.raises(InputError, match="changed from 16000 to 8000"):
        stream.accept_waveform(waveform, 8000)
    stream.input_finished()
    stream.input_finished()
    with pytest.raises(InputError, match="input_finished"):
        stream.accept_waveform(waveform, 16000)
    with pytest.raises(InputError, match="keep_log_probs"):
        stream.log_probs()


def test_unsupported_options_are_refused(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="beam_size"):
        recognizer.create_stream(hotwords=["one"], beam_size=1)
    with pytest.raises(InputError, match="beam search"):
        recognizer.create_stream().add_hotword("one")
    for beam_size in (0, -1, 4097, 2.5, "8"):
        with pytest.raises(InputError, match="beam_size"):
            recognizer.create_stream(beam_size=beam_size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="latency_budget_ms"):
        recognizer.create_stream(latency_budget_ms=50)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="vocab_size 6, got 5 tokens"):
        Recognizer(TinyEncoder(), FBANK, TOKENS[:-1]).create_stream()
    with pytest.raises(InputError, match="80 features"):
        Recognizer(TinyEncoder(), frontend_from_dict({"type": "fbank"}), TOKENS).create_stream()


class FailingEncoder(TinyEncoder):
    """Does something else than it should in its third step."""

    def __init__(self, action) -> None:
        super().__init__()
        object.__setattr__(self, "action", action)

    def open(self, features, log_probs):
        stream, step = super().open(features, log_probs), TinyStream.step

        def failing_step() -> None:
            step(stream)
            if stream.steps == 3:
                self.action(log_probs)

        stream.step = failing_step
        return stream


def test_engine_errors_surface_as_themselves() -> None:
    def fail(_) -> None:
        raise ZeroDivisionError("from the engine")

    stream = Recognizer(FailingEncoder(fail), FBANK, TOKENS).create_stream()
    with pytest.raises(ZeroDivisionError, match="from the engine"):
        stream.accept_waveform(speech_like(2), 16000)
    with pytest.raises(InputError, match=r"reset\(\)"):
        stream.accept_waveform(speech_like(1), 16000)
    with pytest.raises(InputError, match=r"reset\(\)"):
        stream.input_finished()
    stream.reset()
    stream.accept_waveform(speech_like(0.1), 16000)


def test_nan_log_probs_are_an_error() -> None:
    stream = Recognizer(FailingEncoder(lambda rows: rows.fill(np.nan)), FBANK, TOKENS).create_stream()
    with pytest.raises(InputError, match=r"NaN.*output row 4"):
        stream.accept_waveform(speech_like(2), 16000)


def test_engine_must_not_use_its_own_stream() -> None:
    streams: list[Stream] = []
    encoder = FailingEncoder(lambda _: streams[0].accept_waveform(speech_like(0.1), 16000))
    streams.append(Recognizer(encoder, FBANK, TOKENS).create_stream())
    with pytest.raises(RuntimeError, match="must not use"):
        streams[0].accept_waveform(speech_like(2), 16000)
    streams.clear()  # the engine that holds its own stream is a cycle through C++


def test_one_recognizer_serves_threads(recognizer: Recognizer) -> None:
    alone = [run(recognizer, [speech_like(2, seed=i)]) for i in range(4)]
    together: dict[int, Stream] = {}

    def work(i: int) -> None:
        waveform = speech_like(2, seed=i)
        together[i] = run(recognizer, [waveform[j : j + 160] for j in range(0, len(waveform), 160)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        same(together[i], alone[i])


@pytest.mark.parametrize("beam_size", [1, 4])
def test_results_can_be_read_while_audio_is_fed(recognizer: Recognizer, beam_size: int) -> None:
    stream, waveform = recognizer.create_stream(beam_size=beam_size), speech_like(20)
    expected = run(recognizer, [waveform], beam_size=beam_size).result
    seen = []

    def feed() -> None:
        for i in range(0, len(waveform), 160):
            stream.accept_waveform(waveform[i : i + 160], 16000)
        stream.input_finished()

    feeder = threading.Thread(target=feed)
    feeder.start()
    while feeder.is_alive():
        seen.append(stream.result)
    feeder.join()
    assert stream.result == expected
    for result in seen:
        assert "".join(t.token for t in result.tokens).replace("▁", " ").strip() == result.text


def test_memory_stays_bounded() -> None:
    """An hour of audio in a stream whose tokens are few: what it holds must not follow the audio."""
    import resource

    class Silent(TinyEncoder):
        def open(self, features, log_probs):
            stream = super().open(features, log_probs)
            log_probs[:] = log_softmax(np.eye(SPEC.output_frames, SPEC.vocab_size, dtype=np.float32) * 0)
            stream.step = lambda: None
            return stream

    stream, minute = Recognizer(Silent(), FBANK, TOKENS).create_stream(), speech_like(60, 8000)
    stream.accept_waveform(minute, 8000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        stream.accept_waveform(minute, 8000)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert stream.steps == pytest.approx(21 * 60 * 100 / SPEC.chunk_frames, abs=2)
    assert grown_kib < 512
