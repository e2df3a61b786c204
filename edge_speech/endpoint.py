"""When an utterance has ended: the rules (C++ underneath)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edge_speech import _core
from edge_speech.errors import InputError


@dataclass(frozen=True)
class EndpointConfig:
    """Where a stream ends an utterance and begins the next; `math.inf` turns a rule off.

    "trailing_silence": no token for `min_trailing_silence_ms` after the last one, when what was said lasts
    `min_speech_ms` or more from its first token to the end of its last. A CTC token may be a single row, so
    one short word lasts 20 to 80 ms.

    "no_speech": no token for `no_speech_timeout_ms`, or none but shorter ones. A silence ends at most one
    empty utterance, however long it is.

    "max_utterance": `max_utterance_ms` after the first token, in the next row that says no token.

    Time is counted in rows of the decoder, so that the end of an utterance depends on the audio alone. With a
    VAD, silence begins only where that hears no speech either: a CTC model may say a long word's token at its
    beginning and nothing while the word goes on. These are Kaldi's and sherpa-onnx's rules 2, 1 and 3:
    https://github.com/kaldi-asr/kaldi/blob/master/src/online2/online-endpoint.h
    """

    min_trailing_silence_ms: float = 1200.0
    no_speech_timeout_ms: float = 5000.0
    max_utterance_ms: float = 20000.0
    min_speech_ms: float = 0.0


def core_endpoint(config: EndpointConfig | None) -> _core.EndpointConfig | None:
    """The same rules for `_core`. Raises InputError on what is no number; the stream checks the ranges."""
    if config is None:
        return None
    if not isinstance(config, EndpointConfig):
        raise InputError(f"endpoint is {config!r}; allowed: an EndpointConfig, or None for no endpoints")
    for name, value in asdict(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} is {value!r}; allowed: milliseconds, math.inf for never")
    return _core.EndpointConfig(**asdict(config))
