"""The words that a text may have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_speech import _core
from edge_speech.errors import InputError
from edge_speech.lm.model import NgramLm


class Lexicon:
    """Words, spelled as the tokens spell them; a search with a lexicon hears no others.

    With a language model, `CtcConfig.unknown_score` is for those that the model does not have. Read-only:
    threads and decoders may share it. Raises InputError when there is no word, or one has a space.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._cores: dict[NgramLm | None, _core.Lexicon] = {}
        self.core(None)

    @classmethod
    def read(cls, path: Path | str) -> Lexicon:
        """A word per line, UTF-8; what follows it on its line, such as a spelling, is not used.

        Raises InputError.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: cannot be read as a lexicon: {error}; give UTF-8 text, a word per line"
            ) from None
        try:
            return cls(line.split()[0] for line in lines if line.strip())
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return len(self.words)

    def core(self, lm: NgramLm | None) -> _core.Lexicon:
        """The trie, with the numbers and probabilities that the words have in `lm`."""
        if lm not in self._cores:
            try:
                self._cores[lm] = _core.Lexicon.only(list(self.words), None if lm is None else lm.core)
            except ValueError as error:
                raise InputError(str(error)) from None
        return self._cores[lm]
