"""Edge Speech: streaming speech recognition on devices.

    import edge_speech as es
    recognizer = es.Recognizer.load("bundle")
    stream = recognizer.create_stream()
    stream.accept_waveform(samples, sample_rate)
    print(stream.result.text)

Importing this package loads neither an engine nor torch; a name's module is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_speech.audio import read_audio
    from edge_speech.bundle import read_bundle, verify_bundle
    from edge_speech.ctc import (
        CtcConfig,
        CtcGreedy,
        CtcHotword,
        CtcHypothesis,
        CtcPrefixBeam,
        CtcResult,
        CtcToken,
        CtcWord,
    )
    from edge_speech.endpoint import EndpointConfig
    from edge_speech.errors import CheckFailed, InputError
    from edge_speech.features import FbankConfig, LogMelConfig, MfccConfig, OnlineFbank, OnlineFrontend
    from edge_speech.hotwords import Hotword
    from edge_speech.lm.lexicon import Lexicon
    from edge_speech.lm.model import NgramLm
    from edge_speech.recognizer import FoundHotword, Recognizer, Result, Stream
    from edge_speech.timed_log import Token, Word
    from edge_speech.vad import EnergyVad, OnnxVad, VadConfig

_HOMES = {
    "CheckFailed": "errors",
    "CtcConfig": "ctc",
    "CtcGreedy": "ctc",
    "CtcHotword": "ctc",
    "CtcHypothesis": "ctc",
    "CtcPrefixBeam": "ctc",
    "CtcResult": "ctc",
    "CtcToken": "ctc",
    "CtcWord": "ctc",
    "EndpointConfig": "endpoint",
    "EnergyVad": "vad",
    "FbankConfig": "features",
    "FoundHotword": "recognizer",
    "Hotword": "hotwords",
    "InputError": "errors",
    "Lexicon": "lm.lexicon",
    "LogMelConfig": "features",
    "MfccConfig": "features",
    "NgramLm": "lm.model",
    "OnlineFbank": "features",
    "OnlineFrontend": "features",
    "OnnxVad": "vad",
    "Recognizer": "recognizer",
    "Result": "recognizer",
    "Stream": "recognizer",
    "Token": "timed_log",
    "VadConfig": "vad",
    "Word": "timed_log",
    "read_audio": "audio",
    "read_bundle": "bundle",
    "verify_bundle": "bundle",
}

__all__ = [
    "CheckFailed",
    "CtcConfig",
    "CtcGreedy",
    "CtcHotword",
    "CtcHypothesis",
    "CtcPrefixBeam",
    "CtcResult",
    "CtcToken",
    "CtcWord",
    "EndpointConfig",
    "EnergyVad",
    "FbankConfig",
    "FoundHotword",
    "Hotword",
    "InputError",
    "Lexicon",
    "LogMelConfig",
    "MfccConfig",
    "NgramLm",
    "OnlineFbank",
    "OnlineFrontend",
    "OnnxVad",
    "Recognizer",
    "Result",
    "Stream",
    "Token",
    "VadConfig",
    "Word",
    "read_audio",
    "read_bundle",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_speech' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edge_speech.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
