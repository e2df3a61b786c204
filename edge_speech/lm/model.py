"""N-gram language models over the C++ core."""

from __future__ import annotations

import gzip
import zlib
from functools import cached_property
from pathlib import Path

from edge_speech import _core
from edge_speech.errors import InputError

_MOST_TEXT = 1 << 31  # bytes of ARPA text out of a .gz
_GZIP = b"\x1f\x8b"
_COMPILED = b"ESNGRAM\n"
_NO_WORDS = ("<s>", "</s>", "<unk>")


class NgramLm:
    """A back-off model of words; logarithms are natural. Read-only: threads and decoders may share it."""

    def __init__(self, core: _core.NgramModel) -> None:
        self.core = core

    @classmethod
    def load(cls, path: Path | str) -> NgramLm:
        """Read a file of `edge-speech lm compile` (mapped), ARPA text (also .gz) or KenLM's binary format.

        Of KenLM's kinds "probing" and "trie" without quantisation. Raises InputError.
        """
        path = Path(path)
        try:
            text = _unpacked(path)
            return cls(_core.NgramModel.load(str(path)) if text is None else _core.NgramModel.from_arpa(text))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror or error}); give a language model"
            ) from None
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None

    @cached_property
    def lexicon(self) -> _core.Lexicon:
        """The model's words as a trie, made when a search first needs it and then shared."""
        return _core.Lexicon.of(self.core)

    @classmethod
    def load_compiled(cls, path: Path | str) -> NgramLm:
        """Map a file of `edge-speech lm compile` and nothing else, as for a bundle. Raises InputError."""
        path = Path(path)
        with path.open("rb") as file:
            if file.read(len(_COMPILED)) != _COMPILED:
                raise InputError(
                    f"{path}: not a compiled language model; make it with `edge-speech lm compile`"
                )
        return cls.load(path)

    @property
    def order(self) -> int:
        """Words of the longest n-grams."""
        return len(self.core.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of n-grams of each order, from 1 on."""
        return tuple(self.core.counts)

    def words(self) -> list[str]:
        """All its words but "<s>", "</s>" and "<unk>"."""
        words = (word.decode("utf-8", "replace") for word in self.core.words())
        return [word for word in words if word not in _NO_WORDS]

    def __contains__(self, word: str) -> bool:
        """Whether the model has the word; it does not have "<unk>"."""
        return self.core.knows(word)

    def log_probs(self, sentence: str) -> list[float]:
        """ln p of each word given all before it, then of the sentence's end."""
        return self.core.log_probs(sentence)

    def score(self, sentence: str) -> float:
        """ln p of the whole sentence, its end included."""
        return self.core.score(sentence)


def _unpacked(path: Path) -> bytes | None:
    """The text in a gzip file; None when it is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(len(_GZIP)) != _GZIP:
            return None
    try:
        with gzip.open(path) as unpacked:
            text = unpacked.read(_MOST_TEXT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"damaged gzip data ({error}); download or make it again") from None
    if len(text) > _MOST_TEXT:
        raise ValueError("more than 2 GiB when unpacked; unpack it yourself and give the .arpa file")
    return text
