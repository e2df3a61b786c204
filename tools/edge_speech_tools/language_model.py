"""The language model that goes into a bundle: does it fit the model's tokens and what will be said?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_speech import bundle
from edge_speech.bundle_manifest import FileEntry
from edge_speech.ctc import CtcConfig
from edge_speech.decoder import describe
from edge_speech.errors import InputError
from edge_speech.lm.model import NgramLm
from edge_speech.lm.perplexity import Perplexity, perplexity
from edge_speech.training.tokens import WORD_START

_EXAMPLES = 3


@dataclass(frozen=True)
class Fit:
    """`words` of the language model, those that no tokens spell, and how it predicts the evaluation texts."""

    words: int
    unspellable: tuple[str, ...]
    on_texts: Perplexity | None

    def warning(self) -> str | None:
        """What a person should know before the work begins."""
        if not self.unspellable:
            return None
        shown = ", ".join(map(repr, self.unspellable[:_EXAMPLES]))
        return (
            f"{len(self.unspellable)} of {self.words} words of the language model, such as {shown}, "
            "cannot be spelled by the model's tokens"
        )


def check_fit(lm: NgramLm, level: str, tokens: Sequence[str], texts: Sequence[str]) -> Fit:
    """Compare the words of `lm` with what the tokens spell and with the texts (none without --eval).

    At `level` "token" its words are tokens, and how texts are cut into tokens is not known here. Raises
    InputError when no word can be spelled, or when most words of the texts are not in the model.
    """
    words, speller = lm.words(), Speller(tokens)
    spells = speller.pieces.__contains__ if level == "token" else speller.spells
    unspellable = tuple(word for word in words if not spells(word))
    if len(unspellable) == len(words):
        shown = ", ".join(map(repr, unspellable[:_EXAMPLES])) or "none"
        raise InputError(
            f"none of the {len(words)} words of the language model ({shown}) can be spelled by the model's "
            f"tokens ({', '.join(map(repr, tokens[1 : 1 + _EXAMPLES]))}, …); train it on text spelled alike"
        )
    sentences = [text.split() for text in texts if text.split() and level == "word"]
    on_texts = perplexity(lm, sentences) if sentences else None
    if on_texts is not None and 2 * on_texts.oov_words > on_texts.words:
        missing = sorted({word for sentence in sentences for word in sentence if word not in lm})
        raise InputError(
            f"{on_texts.oov_words} of the {on_texts.words} words of the --eval texts are not in the language "
            f"model, such as {', '.join(map(repr, missing[:_EXAMPLES]))}; give one for such texts"
        )
    return Fit(len(words), unspellable, on_texts)


def oov_line(measured: Perplexity) -> str:
    """How the language model predicts the evaluation texts, for people."""
    percent = 100 * measured.oov_words / measured.words
    return (
        f"--eval texts: perplexity {measured.perplexity:.2f}, {measured.oov_words} of {measured.words} words "
        f"({percent:.1f} %) not in the language model"
    )


class Speller:
    """Which words the tokens can write: "▁" and the word, cut into tokens."""

    def __init__(self, tokens: Collection[str]) -> None:
        self.pieces = frozenset(token for token in tokens if token != bundle.BLANK)
        self.longest = max((len(piece) for piece in self.pieces), default=0)

    def spells(self, word: str) -> bool:
        """Whether some cut of the word into tokens exists."""
        text = WORD_START + word
        reached = [True] + [False] * len(text)
        for end in range(1, len(text) + 1):
            starts = range(max(0, end - self.longest), end)
            reached[end] = any(reached[start] and text[start:end] in self.pieces for start in starts)
        return reached[-1]


def write(folder: Path, config: CtcConfig | None) -> FileEntry | None:
    """Write the compiled model of `config` as lm.bin and describe it; None where there is none."""
    if config is None or config.lm is None:
        return None
    (folder / bundle.LANGUAGE_MODEL).write_bytes(config.lm.core.image().data)
    return bundle.describe_file(folder, bundle.LANGUAGE_MODEL)


def describe_decoder(config: CtcConfig | None, source: str | None, fit: Fit | None) -> dict[str, Any]:
    """The report's `decoder`: the search, the language model's size and how it fits."""
    described = describe(config)
    if config is None or config.lm is None or fit is None:
        return described
    about = {
        "source": Path(source or "").name,
        "bytes": int(config.lm.core.image().nbytes),
        **described["lm"],
    }
    about |= {"words": fit.words, "unspellable_words": len(fit.unspellable), "eval": _on_texts(fit.on_texts)}
    return {**described, "lm": about}


def _on_texts(measured: Perplexity | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    percent = 100 * measured.oov_words / measured.words
    figures = {key: round(value, 3) for key, value in asdict(measured).items()}
    return {**figures, "oov_percent": round(percent, 3)}
