"""The whole device line, thin over the C++ stream: waveform in, text out."""

from __future__ import annotations

import numbers
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_speech import _core, backends
from edge_speech.audio import read_audio
from edge_speech.bundle import Artifact, Bundle, read_bundle
from edge_speech.ctc import CtcConfig, core_config, core_lm
from edge_speech.decoder import bundle_decoder, changed
from edge_speech.encoder import Encoder, FloatArray, step_buffers
from edge_speech.endpoint import EndpointConfig, core_endpoint
from edge_speech.errors import InputError
from edge_speech.features import FrontendConfig, frontend_from_dict, native_config
from edge_speech.hotwords import Hotword, as_hotwords
from edge_speech.timed_log import Timed, TimedLog, Token, Word
from edge_speech.vad import Vad, open_for_stream

if TYPE_CHECKING:
    from edge_speech.selection import Selection


@dataclass(frozen=True)
class FoundHotword:
    """A hotword for which the text was boosted, with the seconds of its tokens."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Result:
    """What was heard in an utterance: since the last reset, or the last endpoint.

    `start_s` to `end_s` is from the first token to the last; without any, where the utterance was.
    `committed_text` is the beginning of `text` that no later audio can change: what all hypotheses of a beam
    share, with greedy decoding all of it (a following piece may lengthen the last word). `is_final` is true
    after `input_finished` and of what `Stream.read_segments` gives. There `endpoint` is the rule that ended
    it, see EndpointConfig, or "input_finished", and `endpoint_s` the time of the audio at which it held.
    """

    text: str
    tokens: Sequence[Token]
    committed_text: str
    is_final: bool
    hotwords: tuple[FoundHotword, ...] = ()
    words: Sequence[Word] = ()
    start_s: float = 0.0
    end_s: float = 0.0
    endpoint: str | None = None
    endpoint_s: float | None = None


@dataclass
class _Settled:
    """Of utterance number `utterance`, what cannot change any more, and where its first other word starts."""

    utterance: int = 0
    tokens: TimedLog[Token] = field(default_factory=lambda: TimedLog(Token))
    words: TimedLog[Word] = field(default_factory=lambda: TimedLog(Word))
    rest: tuple[int, int] = (0, 0)  # token, byte of its text


class Stream:
    """Audio in, text out: however the caller cuts the audio, the same log_probs, text and endpoints.

    Without endpoints there is one utterance, from one reset to the next. With an EndpointConfig they follow
    one another, and no audio between them is lost: `read_segments` gives those that have ended, `result` is
    the one that is being said.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        keep_log_probs: bool,
        config: CtcConfig | None,
        endpoint: EndpointConfig | None = None,
        vad: Vad | None = None,
    ) -> None:
        spec, encoder = recognizer.encoder.spec, recognizer.encoder
        features, log_probs = step_buffers(encoder)
        self._symbols = recognizer.tokens
        self._settled = _Settled()
        self._lock = threading.Lock()  # a screen may read results while a microphone feeds
        self._keep_log_probs, self._has_endpoints = keep_log_probs, endpoint is not None
        rate = recognizer.frontend.sample_rate
        try:
            self._stream = _core.Stream(
                frontend=native_config(recognizer.frontend),
                tokens=list(recognizer.tokens),
                blank_id=recognizer.blank_id,
                engine=encoder.open(features, log_probs),
                features=features,
                log_probs=log_probs,
                chunk_frames=spec.chunk_frames,
                right_context_frames=spec.right_context_frames,
                subsampling_factor=spec.subsampling_factor,
                padding_value=spec.padding_value,
                keep_log_probs=keep_log_probs,
                beam=None if config is None else core_config(config),
                lm=core_lm(config),
                endpoint=core_endpoint(endpoint),
                vad=None if vad is None else open_for_stream(vad, rate),
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        for hotword in () if config is None else as_hotwords(config.hotwords):
            self._add_hotword(hotword)

    def add_hotword(self, phrase: str, boost: float | None = None) -> None:
        """Prefer `phrase` in what is said from now on; see Hotword. It stays over `reset`.

        Raises InputError on a greedy stream, a phrase that the tokens cannot spell, and a boost out of range.
        """
        self._add_hotword(Hotword(phrase, boost))

    def _add_hotword(self, hotword: Hotword) -> None:
        try:
            self._stream.add_hotword(hotword.phrase, hotword.nats)
        except _core.StreamError as error:
            raise InputError(str(error)) from None

    def remove_hotword(self, phrase: str) -> None:
        """Prefer it no longer; what it did stays. Raises InputError when it is not there."""
        if not self._stream.remove_hotword(phrase):
            raise InputError(f"no hotword {phrase!r} to remove; name one that was added")

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add samples (N,), float in [-1, 1] or int16, mono, any length, at 4000 to 192000 Hz.

        Raises InputError on anything else, on NaN or infinity and after `input_finished`; nothing is then
        consumed. What the engine raises passes through; afterwards only `reset` is allowed.
        """
        checked = _checked_samples(samples)
        try:
            self._stream.accept_waveform(checked, _checked_rate(sample_rate))
        except _core.StreamError as error:
            raise InputError(str(error)) from None

    def input_finished(self) -> None:
        """No more audio: decode exactly what is left. Raises InputError after a failed step."""
        try:
            self._stream.input_finished()
        except _core.StreamError as error:
            raise InputError(str(error)) from None

    def reset(self) -> None:
        """Ready for other audio, whose time starts at zero; segments that were not read are gone."""
        with self._lock:
            self._settled = _Settled()
            self._stream.reset()

    @property
    def result(self) -> Result:
        """Text and tokens so far."""
        with self._lock:
            known = self._settled
            heard = self._stream.heard_from(known.utterance, len(known.tokens), *known.rest)
            if heard.utterance != known.utterance:
                known = self._settled = _Settled(heard.utterance)
            settled = heard.num_settled - len(known.tokens)
            for symbol, *numbers in heard.tokens[:settled]:
                known.tokens.append(self._symbols[symbol], *numbers)
            # A word is final when the next one starts in a token that is.
            final = sum(token < heard.num_settled for *_, token, _ in heard.words[1:])
            for text, *numbers, _, _ in heard.words[:final]:
                known.words.append(text, *numbers)
            known.rest = heard.words[final][-2:] if final else known.rest
            return self._as_result(heard, known, settled, final)

    def _as_result(self, heard: _core.Heard, known: _Settled, settled: int = 0, final: int = 0) -> Result:
        """`known`, and what was heard but for the first `settled` tokens and `final` words, which it has."""
        rest = [Token(self._symbols[symbol], *numbers) for symbol, *numbers in heard.tokens[settled:]]
        tokens = Timed(known.tokens, rest)
        return Result(
            text=heard.text,
            tokens=tokens,
            committed_text=heard.committed_text,
            is_final=heard.is_final,
            hotwords=tuple(
                FoundHotword(text, tokens[a].start_s, tokens[b].end_s) for text, a, b in heard.hotwords
            ),
            words=Timed(known.words, [Word(*word[:4]) for word in heard.words[final:]]),
            start_s=heard.start_s,
            end_s=heard.end_s,
            endpoint=heard.endpoint or None,
            endpoint_s=heard.endpoint_s if heard.endpoint else None,
        )

    @property
    def endpoint(self) -> bool:
        """Whether an utterance has ended that `read_segments` has not given yet."""
        return bool(self._stream.endpoint)

    def read_segments(self) -> tuple[Result, ...]:
        """The utterances that have ended since the last call; after `input_finished` with the one it ended.

        Times go on from one to the next. Raises InputError when the stream has no endpoints.
        """
        if not self._has_endpoints:
            raise InputError("the stream has no endpoints; use create_stream(endpoint=EndpointConfig())")
        return tuple(self._as_result(heard, _Settled()) for heard in self._stream.take_ended())

    @property
    def audio_s(self) -> float:
        """Seconds of audio accepted since the last reset."""
        return float(self._stream.audio_s)

    @property
    def steps(self) -> int:
        """Encoder steps run since the last reset."""
        return int(self._stream.steps)

    def log_probs(self) -> FloatArray:
        """All decoded rows (T, V) since the last reset. Raises InputError unless created to keep them."""
        if not self._keep_log_probs:
            raise InputError("log_probs were not kept; use create_stream(keep_log_probs=True)")
        rows: FloatArray = self._stream.log_probs()
        return rows


class Recognizer:
    """An encoder, its front end and its tokens; shared by any number of streams.

    `decoder` is what a stream runs that is asked for no other: a search, or None, which is greedy; a bundle's
    language model is mapped once and shared. `artifact` is the one that was loaded, None for an encoder that
    did not come from a bundle.
    """

    def __init__(
        self,
        encoder: Encoder,
        frontend: FrontendConfig,
        tokens: Sequence[str],
        blank_id: int = 0,
        decoder: CtcConfig | None = None,
    ) -> None:
        self.encoder, self.frontend = encoder, frontend
        self.tokens, self.blank_id, self.decoder = tuple(tokens), blank_id, decoder
        self.artifact: Artifact | None = None
        self.selection: Selection | None = None

    @classmethod
    def load(cls, path: Path | str, backend: str = "auto", num_threads: int = 1) -> Recognizer:
        """Load a bundle; "auto" takes the fastest of its artifacts that are verified, or were built on this
        device, and that this install can run: see edge_speech.selection, and `selection` for what was found.

        What does not load here, such as an engine of another device, is passed over with a warning
        (FellBack). Raises InputError: not a bundle, damaged, unknown backend, or nothing in it runs here.
        """
        from edge_speech.selection import load_fastest

        bundle = read_bundle(path)
        candidates = runnable_artifacts(bundle, backend)
        if backend != "auto":
            return cls.from_artifact(bundle, candidates[0], num_threads)
        recognizer, selection = load_fastest(bundle, candidates, Path(path), num_threads)
        recognizer.selection = selection
        return recognizer

    @classmethod
    def from_artifact(cls, bundle: Bundle, artifact: Artifact, num_threads: int = 1) -> Recognizer:
        """Load one artifact of a bundle. Raises InputError."""
        if not isinstance(num_threads, int) or not 1 <= num_threads <= 1024:
            raise InputError(f"num_threads is {num_threads!r}; allowed: 1 to 1024")
        return cls.with_encoder(bundle, artifact, backends.load_artifact(bundle, artifact, num_threads))

    @classmethod
    def with_encoder(cls, bundle: Bundle, artifact: Artifact, encoder: Encoder) -> Recognizer:
        """A bundle's line with an artifact that is loaded already. Raises InputError."""
        frontend = frontend_from_dict(bundle.manifest.frontend)
        blank_id, decoder = bundle.manifest.decoder["blank_id"], bundle_decoder(bundle)
        recognizer = cls(encoder, frontend, bundle.tokens, blank_id, decoder)
        recognizer.artifact = artifact
        return recognizer

    def create_stream(
        self,
        hotwords: Sequence[str | Hotword] | None = None,
        latency_budget_ms: float | None = None,
        keep_log_probs: bool = False,
        beam_size: int | None = None,
        config: CtcConfig | None = None,
        *,
        endpoint: EndpointConfig | None = None,
        vad: Vad | None = None,
    ) -> Stream:
        """A new stream with the recognizer's `decoder`: what the bundle says, its language model too. A
        `beam_size` of 1 decodes greedily instead, more is a prefix beam search of this size; hotwords need
        one (8 where the bundle has none) and join it. A `config` takes the place of all of these.
        `keep_log_probs` makes `Stream.log_probs` work, at the cost of growing memory. With `endpoint` the
        stream ends utterances, see Stream; a `vad` of its own, which takes the front end's sample rate, makes
        that wait for the end of what it hears as speech.

        Raises InputError on options that do not fit together or that this version cannot honour.
        """
        if config is not None and (hotwords or beam_size is not None):
            raise InputError("config is given beside hotwords or beam_size; put these into the CtcConfig")
        if latency_budget_ms is not None:
            raise InputError("latency_budget_ms is not supported by this version; leave it out")
        if vad is not None and endpoint is None:
            raise InputError("vad is given without endpoint; add endpoint=EndpointConfig()")
        chosen = changed(self.decoder, beam_size, hotwords) if config is None else config
        return Stream(self, keep_log_probs, chosen, endpoint, vad)

    def transcribe(self, path: Path | str) -> Result:
        """Text of an audio file: a stream with one chunk. Raises InputError."""
        samples, sample_rate = read_audio(path)
        stream = self.create_stream()
        stream.accept_waveform(samples, sample_rate)
        stream.input_finished()
        return stream.result


def choose_artifact(bundle: Bundle, backend: str = "auto") -> Artifact:
    """The first of `runnable_artifacts`."""
    return runnable_artifacts(bundle, backend)[0]


def runnable_artifacts(bundle: Bundle, backend: str = "auto") -> list[Artifact]:
    """Of `backend`, or of all with "auto", what this install can run, best first: verified, or with an engine
    that was built on a device. After them come the same files in other engines that read them, see
    `backends.others`. Raises InputError when there is none."""
    artifacts = bundle.manifest.artifacts
    artifacts = (*artifacts, *backends.others(artifacts, on_request=backend != "auto"))
    candidates = [a for a in artifacts if backend in ("auto", a.backend)]
    usable = [a for a in candidates if _is_usable(bundle, a, backend)]
    runnable = [a for a in usable if not backends.missing(a.backend)]
    if not runnable:
        raise InputError(f"{bundle.root}: {_why_none(bundle, backend, candidates, usable)}")
    return runnable


def _is_usable(bundle: Bundle, artifact: Artifact, backend: str) -> bool:
    asked_for = artifact.status == "built" and backend != "auto"
    return artifact.status == "verified" or asked_for or backends.has_engine(bundle, artifact)


def _why_none(bundle: Bundle, backend: str, candidates: list[Artifact], verified: list[Artifact]) -> str:
    if verified:
        return str(backends.missing(verified[0].backend))
    if not candidates:
        has = ", ".join(sorted({a.backend for a in bundle.manifest.artifacts}))
        return f"no artifact for backend {backend!r}; the bundle has {has}"
    command = candidates[0].command
    advice = f"build it on the device with `{command}`" if command else "run the bundle on its own device"
    return f"its {candidates[0].backend} artifact is {candidates[0].status}, not verified here; {advice}"


def _checked_samples(samples: npt.ArrayLike) -> npt.NDArray[np.float32] | npt.NDArray[np.int16]:
    """Contiguous (N,) int16 or float32. Raises InputError."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise InputError(
            f"samples have shape {array.shape}; allowed: one channel, shape (N,); mix or pick a channel"
        )
    if array.dtype == np.int16:
        return np.ascontiguousarray(array, dtype=np.int16)
    if array.dtype.kind != "f" and array.size:
        raise InputError(f"samples are {array.dtype}; allowed: float32 in [-1, 1] or int16")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinity, which the stream refuses
        return np.ascontiguousarray(array, dtype=np.float32)


def _checked_rate(sample_rate: int) -> int:
    is_number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not is_number or not 0 < sample_rate < 1 << 31 or sample_rate != int(sample_rate):
        raise InputError(f"sample_rate is {sample_rate!r}; allowed: a whole number from 4000 to 192000 Hz")
    return int(sample_rate)
