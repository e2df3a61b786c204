"""What is checked of one set's texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable

from edge_speech.validation.finding import ADVICE, BROKEN, Case, DataSet, Finding, finding

_RARE_SHARE = 1e-4
_LARGEST_ALPHABET = 100  # of letters; where there are more, as of hanzi, rare ones are the rule
_USUAL = " '"


def check_texts(data: DataSet) -> list[Finding]:
    """Empty texts are broken; the rest is advice. A set without any text is none to recognise."""
    if not data.texts:
        without = f"none of {len(data.checked)} utterances has a text: fit for noise, not for recognition"
        return [Finding(ADVICE, "no text", data.name, len(data.checked), without)]
    empty = [Case(u.name, "empty text") for u in data.texts if not u.text.strip()]
    return [
        *finding(BROKEN, "empty text", data, empty, "texts are empty"),
        *_odd_characters(data),
        *_rare_letters(data),
        *_mixed_case(data),
        *_odd_writing(data),
    ]


def characters(data: DataSet) -> Counter[str]:
    """How often each character occurs in the set's texts."""
    return Counter("".join(u.text for u in data.texts))


def is_letter(character: str) -> bool:
    """Letters and the marks that belong to them, in any script."""
    return unicodedata.category(character)[0] in "LM"


def _odd_characters(data: DataSet) -> list[Finding]:
    odd = {c: n for c, n in characters(data).most_common() if not is_letter(c) and c not in _USUAL}
    message = f"characters that are no letters: {_counted(odd)}; spell numbers out, remove punctuation"
    return finding(ADVICE, "odd characters", data, _containing(data, odd), message)


def _rare_letters(data: DataSet) -> list[Finding]:
    letters = {c: n for c, n in characters(data).most_common() if is_letter(c)}
    most = _RARE_SHARE * sum(letters.values())
    rare = {c: n for c, n in letters.items() if n < most}
    if len(letters) > _LARGEST_ALPHABET:
        return []
    message = f"letters too rare to be learnt: {_counted(rare)}; write them as the others"
    return finding(ADVICE, "rare letters", data, _containing(data, rare), message)


def _mixed_case(data: DataSet) -> list[Finding]:
    """The utterances in the case that fewer have."""
    sides: tuple[Callable[[str], bool], ...] = (str.isupper, str.islower)
    upper, lower = ([u for u in data.texts if any(map(side, u.text))] for side in sides)
    if not (upper and lower):
        return []
    cases = [Case(u.name, u.text[:60]) for u in min(upper, lower, key=len)]
    message = f"upper case in {len(upper)} texts, lower in {len(lower)}: a model learns them as other letters"
    return finding(ADVICE, "mixed case", data, cases, message)


def _odd_writing(data: DataSet) -> list[Finding]:
    texts = [u for u in data.texts if u.text.strip()]
    spaced = [Case(u.name, repr(u.text[:60])) for u in texts if u.text != " ".join(u.text.split())]
    composed = [Case(u.name, u.text[:60]) for u in texts if not unicodedata.is_normalized("NFC", u.text)]
    return [
        *finding(ADVICE, "odd spaces", data, spaced, "spaces at the ends, several in a row, or tabs"),
        *finding(ADVICE, "not NFC", data, composed, "letters as several code points; normalise to NFC"),
    ]


def _containing(data: DataSet, wanted: dict[str, int]) -> list[Case]:
    return [Case(u.name, u.text[:60]) for u in data.texts if not wanted.keys().isdisjoint(u.text)]


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{_shown(c)} × {n}" for c, n in counts.items()]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _shown(character: str) -> str:
    return character if character.isprintable() else f"U+{ord(character):04X}"
