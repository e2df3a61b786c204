"""Phrases that a search shall prefer: how a caller gives them, and the file that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_speech.errors import InputError

# A phrase's boost when none is given, in nats per character: enough to win against a near rival of its sound,
# not enough to be heard where nothing like it was said.
BOOST_PER_CHARACTER = 0.5


@dataclass(frozen=True)
class Hotword:
    """A phrase of whole words, spelled as the model's tokens spell it, and its boost in nats.

    The boost is for the whole phrase; None stands for 0.5 per character. Raises InputError on an empty phrase
    and on a boost that is not above 0 and at most 1000.
    """

    phrase: str
    boost: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.phrase, str) or not self.phrase.strip():
            raise InputError(f"a hotword is {self.phrase!r}; allowed: text of one word or more")
        boost = self.boost
        if boost is None:
            return
        if isinstance(boost, bool) or not isinstance(boost, int | float) or not 0 < boost <= 1000:
            raise InputError(
                f"the boost of hotword {self.phrase!r} is {boost!r}; allowed: above 0, at most 1000"
            )

    @property
    def nats(self) -> float:
        """The boost, or what stands for it."""
        characters = len("".join(self.phrase.split()))
        return min(1000.0, BOOST_PER_CHARACTER * characters) if self.boost is None else float(self.boost)


def as_hotwords(given: Iterable[str | Hotword]) -> tuple[Hotword, ...]:
    """Phrases and Hotwords as Hotwords. Raises InputError."""
    if isinstance(given, str):
        raise InputError(
            f"hotwords are the text {given!r}; allowed: a list of phrases, for example [{given!r}]"
        )
    return tuple(h if isinstance(h, Hotword) else Hotword(h) for h in given)


def read_hotwords(path: Path | str) -> tuple[Hotword, ...]:
    """A phrase per line, optionally a tab and its boost; empty lines and lines from "#" on do not count.

    Raises InputError: unreadable, not UTF-8, a boost that is no number, no phrase at all.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as hotwords: {error}; give UTF-8 text, a phrase per line"
        ) from None
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise InputError(f"{path}: no hotword in it; give a phrase per line")
    return tuple(_parse(line, f"{path}:{i}") for i, line in numbered)


def _parse(line: str, where: str) -> Hotword:
    phrase, _, boost = line.partition("\t")
    try:
        return Hotword(phrase.strip(), float(boost) if boost.strip() else None)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except ValueError:
        raise InputError(f"{where}: boost {boost!r}; allowed: phrase, tab, a number of nats") from None
