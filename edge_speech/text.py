"""Texts in one spelling, for training and for scoring: NFKC, numbers in words, lower case, no punctuation.

What it leaves to the reader of the text: years ("1995" is read as a count), currencies, abbreviations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from edge_speech.errors import InputError

UNDETERMINED = "und"  # ISO 639-2: numerals stay as they are

_DECIMAL_COMMA = frozenset(
    "az be ca cs da de es fi fr hu id is it kz lt lv nl no pl pt ro ru sk sl sr sv tr uk vi".split()
)
_LONGEST = 9  # digits of a count; more are an identifier, such as a telephone number
_LEFT_OUT = frozenset({"am", "ce"})  # num2words 0.5.14 never ends on 1234567, fails on 3.14
_SIGNS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"%": "percent", "&": "and"},
        "de": {"%": "Prozent", "&": "und"},
        "fr": {"%": "pour cent", "&": "et"},
        "es": {"%": "por ciento", "&": "y"},
    }
)
_GROUPING_SPACE = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3})")
_TURKIC = frozenset({"tr", "az"})
_ENGLISH_ORDINAL = re.compile(r"(?<![\d.,])(\d{1,9})(?:st|nd|rd|th)\b", re.IGNORECASE)


class Normalizer:
    """`Normalizer("en")("It's 21%.")` is "it's twenty one percent".

    `language` is a code of num2words ("en", "de", "pt_BR", …) or "und", which leaves numerals alone. Raises
    InputError on another, and where num2words is not installed.
    """

    def __init__(self, language: str = "en") -> None:
        self.language, self._base = language, language.split("_", maxsplit=1)[0]
        comma = self._base in _DECIMAL_COMMA
        group, point = (r"[.']", ",") if comma else (r"[,']", r"\.")
        self._number = re.compile(rf"\d{{1,3}}(?:{group}\d{{3}})+(?!\d)(?:{point}\d+)?|\d+(?:{point}\d+)?")
        self._group, self._point = re.compile(group), point.strip("\\")
        if language != UNDETERMINED:
            _check_language(language)

    def __call__(self, text: str) -> str:
        """The text in this spelling: words with one space between, apostrophes within words kept."""
        text = unicodedata.normalize("NFKC", _GROUPING_SPACE.sub("", text)).replace("’", "'")
        if self.language != UNDETERMINED:
            text = self._spelled(text)
        return " ".join(_without_marks(_lower(text, self._base)).split())

    def _spelled(self, text: str) -> str:
        for sign, word in _SIGNS.get(self._base, {}).items():
            text = text.replace(sign, f" {word} ")
        if self._base == "en":
            text = _ENGLISH_ORDINAL.sub(lambda m: f" {self._words(int(m[1]), 'ordinal')} ", text)
        return self._number.sub(lambda match: f" {self._number_words(match[0])} ", text)

    def _number_words(self, numeral: str) -> str:
        """As a count where it is one, else digit by digit."""
        plain = self._group.sub("", numeral).replace(self._point, ".")
        digits = plain.replace(".", "")
        with suppress(LookupError):  # num2words has no names for long Hungarian fractions
            if len(digits) <= _LONGEST and (plain[0] != "0" or plain[1:2] in ("", ".")):
                return self._words(float(plain))
        return " ".join(self._words(int(digit)) for digit in digits)

    def _words(self, number: float, form: str = "cardinal") -> str:
        from num2words import num2words

        return str(num2words(int(number) if number == int(number) else number, lang=self.language, to=form))


def _check_language(language: str) -> None:
    try:
        from num2words import CONVERTER_CLASSES
    except ImportError:
        raise InputError(
            'numbers in words need num2words; install it with `pip install "edge-speech[tools]"`'
        ) from None
    known = sorted(set(CONVERTER_CLASSES) - _LEFT_OUT)
    if language not in known:
        raise InputError(
            f"language {language!r} has no number words; allowed: {', '.join(known)}, and "
            f"{UNDETERMINED}, which leaves numerals as they are"
        )


def _lower(text: str, language: str) -> str:
    """Turkish and Azerbaijani have two letters i (https://www.unicode.org/Public/UNIDATA/SpecialCasing.txt)."""
    if language in _TURKIC:
        text = text.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFKC", text.lower())


def _without_marks(text: str) -> str:
    """Punctuation and symbols become spaces; an apostrophe between letters stays."""
    kept = "".join(" " if unicodedata.category(c)[0] in "PSC" and c != "'" else c for c in text)
    return re.sub(r"(?<!\w)'|'(?!\w)", " ", kept)
