"""One spelling for texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words

from edge_speech.errors import InputError
from edge_speech.text import Normalizer

ENGLISH = {
    "It's 21%.": "it's twenty one percent",
    "1,234.50 dollars": "one thousand two hundred and thirty four point five dollars",
    "the 2nd and the 23rd": "the second and the twenty third",
    "007": "zero zero seven",
    "call 5551234567": "call five five five one two three four five six seven",
    "0.5": "zero point five",
    "mp3, AC/DC — “Hello”": "mp three ac dc hello",
    "’tis the cats' “don’t”": "tis the cats don't",
    "3,4": "three four",
    "ﬁne ＡＢ１２": "fine ab twelve",
    " well-known \t fact\n": "well known fact",
    "...": "",
}
OTHERS = [
    ("de", "1.234,5 Straße, GRÖSSE", "eintausendzweihundertvierunddreißig komma fünf straße grösse"),
    ("fr", "l’homme, 1\u202f234", "l'homme mille deux cent trente quatre"),
    ("pt_BR", "21 Ação", "vinte e um ação"),
    ("tr", "I İ 3", "ı i üç"),
    ("ar", "٣", "ثلاثة"),
    ("it", "1,5", "uno virgola cinque"),
    ("und", "你好，3 个", "你好 3 个"),
]


@pytest.mark.parametrize("text", ENGLISH)
def test_english(text: str) -> None:
    assert Normalizer()(text) == ENGLISH[text]


@pytest.mark.parametrize(("language", "text", "expected"), OTHERS)
def test_other_languages(language: str, text: str, expected: str) -> None:
    assert Normalizer(language)(text) == expected


def test_what_num2words_cannot_say_is_read_as_digits() -> None:
    with pytest.raises(KeyError):
        num2words(1.12345, lang="hu")
    assert Normalizer("hu")("1,12345") == "egy egy kettő három négy öt"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("0123456789.,'’%& -stndthAÉßş“½٣\u00a0\u202f"), max_size=30))
@pytest.mark.parametrize("language", ["en", "de", "fr", "hu", "it", "en_IN"])
def test_a_text_in_this_spelling_stays(language: str, text: str) -> None:
    normalize = Normalizer(language)
    once = normalize(text)
    assert normalize(once) == once
    assert not any(c.isdigit() for c in once)
    assert once == " ".join(once.split())


@pytest.mark.parametrize("language", ["xx", "EN", "", "am"])
def test_unknown_language(language: str) -> None:
    with pytest.raises(InputError, match=r"has no number words; allowed: ar, .*, and und"):
        Normalizer(language)
