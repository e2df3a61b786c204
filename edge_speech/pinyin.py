"""Chinese texts in pinyin, by pypinyin: some four hundred syllables in place of thousands of characters."""

from __future__ import annotations

import re
from collections.abc import Callable

from edge_speech.errors import InputError

_WORD = re.compile(r"[\w']+")


def romanizer(tones: bool = False) -> Callable[[str], str]:
    """A function that spells hanzi as syllables with a space between, other words in lower case, no marks.

    "设定29度" is "she ding 29 du", with tones "she4 ding4 29 du4" (5 is the neutral tone). ü is v. Which
    reading a character has is decided from the words around it. Raises InputError where pypinyin is missing.
    """
    try:
        from pypinyin import Style, lazy_pinyin
    except ModuleNotFoundError as error:
        raise InputError('pinyin needs pypinyin; `pip install "edge-speech[train]"`') from error
    style = Style.TONE3 if tones else Style.NORMAL

    def romanize(text: str) -> str:
        pieces = lazy_pinyin(text, style=style, neutral_tone_with_five=tones)
        return " ".join(word for piece in pieces for word in _WORD.findall(piece.lower()))

    return romanize
