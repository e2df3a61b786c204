"""Which decoder turns a bundle's log_probs into text: what its manifest says, and what a caller changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_speech.bundle import Bundle
from edge_speech.bundle_manifest import GREEDY, LM_WEIGHTS, PREFIX_BEAM, FileEntry
from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.hotwords import Hotword, read_hotwords
from edge_speech.lm.model import NgramLm


@dataclass(frozen=True)
class DecoderOptions:
    """What a command line says about decoding, plain enough for another process; None changes nothing.

    `lm` and `hotwords` name files. A `beam_size` of 1 is greedy.
    """

    beam_size: int | None = None
    lm: str | None = None
    lm_level: str | None = None
    lm_weight: float | None = None
    word_bonus: float | None = None
    hotwords: str | None = None

    def over(self, default: CtcConfig | None) -> CtcConfig | None:
        """`default` with these changes, its files read; None is greedy. Raises InputError."""
        names = ("lm", "lm_level", "lm_weight", "word_bonus")
        given = {name: getattr(self, name) for name in names}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.beam_size == 1 and changes:
            raise InputError(
                f"{next(iter(changes))} is given, but greedy decoding has no use for it; drop one"
            )
        hotwords = read_hotwords(self.hotwords) if self.hotwords is not None else ()
        config = changed(default, self.beam_size, hotwords)
        if not changes:
            return config
        if self.lm is not None:
            changes["lm"] = NgramLm.load(self.lm)
        config = replace(config or CtcConfig(), **changes)
        if config.lm is None:
            raise InputError(f"{next(iter(changes))} is given without a language model; name one with --lm")
        return config


def changed(
    default: CtcConfig | None, beam_size: int | None = None, hotwords: Sequence[str | Hotword] | None = None
) -> CtcConfig | None:
    """`default` with another beam and these hotwords; None is greedy, and so is a `beam_size` of 1.

    Raises InputError on hotwords for a greedy decoder.
    """
    if beam_size == 1:
        if hotwords:
            raise InputError("beam_size is 1 with hotwords; allowed: 2 or more, for example 8")
        return None
    if beam_size is None and not hotwords:
        return default
    config = default or CtcConfig()
    size = config.beam_size if beam_size is None else beam_size
    return replace(config, beam_size=size, hotwords=hotwords or config.hotwords)


def open_decoder(
    tokens: Sequence[str], config: CtcConfig | None, blank_id: int = 0
) -> CtcGreedy | CtcPrefixBeam:
    """The search of `config`, greedy where it is None. Raises InputError."""
    return CtcGreedy(tokens, blank_id) if config is None else CtcPrefixBeam(tokens, config, blank_id)


def text_of(decoder: CtcGreedy | CtcPrefixBeam, log_probs: FloatArray) -> str:
    """The text of one utterance's log_probs (T, V). Raises InputError."""
    decoder.reset()
    decoder.step(log_probs)
    return decoder.finish().text


def bundle_decoder(bundle: Bundle) -> CtcConfig | None:
    """What the manifest says, the language model mapped; None is greedy. Raises InputError."""
    decoder, entry = bundle.manifest.decoder, bundle.manifest.language_model
    if decoder["type"] == GREEDY:
        return None
    lm = None if entry is None else NgramLm.load_compiled(bundle.verified_path(entry))
    weights = {name: decoder[name] for name in LM_WEIGHTS}
    return CtcConfig(decoder["beam_size"], lm=lm, lm_level=decoder["lm_level"], **weights)


def manifest_decoder(config: CtcConfig | None, blank_id: int, lm: FileEntry | None) -> dict[str, Any]:
    """The manifest's `decoder`: `bundle_decoder` reads the same config from it."""
    if config is None:
        return {"type": GREEDY, "blank_id": blank_id}
    entry = {"lm": None if lm is None else asdict(lm), "lm_level": config.lm_level}
    weights = {name: float(getattr(config, name)) for name in LM_WEIGHTS}
    return {"type": PREFIX_BEAM, "blank_id": blank_id, "beam_size": config.beam_size, **entry, **weights}


def describe(config: CtcConfig | None) -> dict[str, Any]:
    """What decoded, for people and JSON; the weights only where a language model used them."""
    if config is None:
        return {"type": GREEDY}
    search = {"type": PREFIX_BEAM, "beam_size": config.beam_size}
    if config.lm is None:
        return search
    lm = {"order": config.lm.order, "ngrams": list(config.lm.counts)}
    weights = {name: getattr(config, name) for name in LM_WEIGHTS}
    return {**search, "lm": lm, "lm_level": config.lm_level, **weights}


def in_words(decoder: dict[str, Any]) -> str:
    """What `describe` gives, or a manifest's decoder, in a few words."""
    if decoder["type"] == GREEDY:
        return "greedy"
    beam = f"beam {decoder['beam_size']}"
    if decoder.get("lm") is None:
        return beam
    of = " of tokens" if decoder["lm_level"] == "token" else ""
    return f"{beam}, language model{of} weight {decoder['lm_weight']:g}, word bonus {decoder['word_bonus']:g}"
