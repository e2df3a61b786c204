"""Eval beyond the rates: speakers, frequent errors, broken recordings, normalised texts, the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import jiwer
import numpy as np
import pytest

from edge_speech.alignment import Pair, align
from edge_speech.breakdown import by_speaker, frequent_errors
from edge_speech.eval_page import render
from edge_speech.evaluation import Decoded, Scores
from edge_speech.recognizer import Recognizer
from test_cli import done
from test_errors import refused, run
from tiny import speech_like, write_bundle, write_wav

INTS = (speech_like(2) * 32767).astype(np.int16)
HEARD = (
    Decoded("a.wav", "one two three", "one too three four", "ann", 0.9),
    Decoded("b.wav", "two <b>", "too", "bob", 0.5),
    Decoded("c.wav", "one", "one", "ann", 1.0),
    Decoded("d.wav", "", "four", "eve", None),
    Decoded("e.wav", "one", "", None, None),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of two speakers, and a manifest with two that cannot be read between them."""
    folder = tmp_path_factory.mktemp("eval")
    write_bundle(folder / "bundle")
    for i, name in enumerate("abc"):
        write_wav(folder / f"{name}.wav", INTS[i * 6000 :])
    (folder / "broken.wav").write_bytes(b"GIF89a" * 100)
    lines = [
        {"audio_filepath": f"{name}.wav", "text": text, "speaker": speaker}
        for name, text, speaker in [("a", "Two, 1!", 7), ("b", "two one", "bob"), ("c", "four", "bob")]
    ]
    good = [json.dumps(line) for line in lines]
    bad = [json.dumps({"audio_filepath": f"{name}.wav", "text": "one"}) for name in ("broken", "missing")]
    (folder / "m.jsonl").write_text("\n".join(good))
    (folder / "bad.jsonl").write_text("\n".join([good[0], *bad, *good[1:]]))
    (folder / "broken.jsonl").write_text("\n".join([good[0], bad[0]]))
    (folder / "nameless.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "one"}))
    return folder


def test_alignment_is_word_by_word() -> None:
    assert align("one two three", "one too three four") == (
        Pair("equal", "one", "one"),
        Pair("substitute", "two", "too"),
        Pair("equal", "three", "three"),
        Pair("insert", "", "four"),
    )
    assert align("a  b", "") == (Pair("delete", "a", ""), Pair("delete", "b", ""))
    assert align("", "") == ()


def test_speakers_with_the_most_errors_first() -> None:
    scores = by_speaker(HEARD)
    assert [(s.speaker, s.utterances, s.words) for s in scores] == [
        (None, 1, 1),
        ("bob", 1, 2),
        ("ann", 2, 4),
        ("eve", 1, 0),
    ]
    ann = scores[2]
    assert ann.wer == pytest.approx(100 * 2 / 4)
    assert ann.cer == pytest.approx(100 * jiwer.cer(["one two three", "one"], ["one too three four", "one"]))
    assert (scores[3].wer, scores[3].cer) == (None, None)


def test_frequent_errors_are_counted_with_the_first_place() -> None:
    found = frequent_errors(HEARD, 2)
    figures = {
        kind: [(e.said, e.heard, e.count, e.example.audio_filepath) for e in f] for kind, f in found.items()
    }
    assert figures == {
        "substitutions": [("two", "too", 2, "a.wav")],
        "deletions": [("<b>", "", 1, "b.wav"), ("one", "", 1, "e.wav")],
        "insertions": [("", "four", 2, "a.wav")],
    }
    assert len(frequent_errors(HEARD, 1)["deletions"]) == 1


def test_page_holds_every_text_and_escapes_it() -> None:
    html = render("<title>", Scores(57.1, (10.0, 99.0), 40.0, 5, 7, 9.0, 0.01), HEARD)
    tags: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))  # type: ignore[method-assign]
    parser.feed(html)
    names = [tag for tag, _ in tags]
    assert names.count("svg") == 2
    assert not {"script", "link", "img", "iframe"} & set(names)
    assert "http" not in html
    kinds = [a["class"] for tag, a in tags if tag == "span" and (a.get("class") or "").startswith("pair ")]
    assert sorted(kinds) == sorted(
        ["pair equal"] * 3 + ["pair substitute"] * 2 + ["pair delete"] * 2 + ["pair insert"] * 2
    )
    assert "two <b>" not in html
    assert "&lt;b&gt;" in html
    files = [html.index(f"{name}.wav") for name in "abdec"]
    assert files == sorted(files)
    assert "57.10 % (95 % interval 10.00 … 99.00)" in html


def test_json_has_what_was_asked_for(work: Path) -> None:
    asked = "--per-speaker", "--errors", "2", "--details", "--html", "page.html"
    document = json.loads(done(work, "eval", "bundle", "m.jsonl", "--json", *asked))
    assert {s["speaker"]: (s["utterances"], s["words"]) for s in document["speakers"]} == {
        "7": (1, 2),
        "bob": (2, 3),
    }
    words = sum(s["wer"] * s["words"] for s in document["speakers"]) / 5
    assert document["wer"] == pytest.approx(words, abs=1e-3)
    low, high = document["wer_ci95"]
    assert low <= document["wer"] <= high
    assert set(document["errors"]) == {"substitutions", "deletions", "insertions"}
    assert all(len(kind) <= 2 for kind in document["errors"].values())
    heard = Recognizer.load(work / "bundle").transcribe(work / "a.wav")
    first = document["details"][0]
    assert (first["hypothesis"], first["speaker"]) == (heard.text, "7")
    assert first["confidence"] == pytest.approx(np.mean([w.confidence for w in heard.words]), abs=1e-4)
    assert (work / "page.html").read_text().startswith("<!doctype html>")


def test_people_get_tables(work: Path) -> None:
    lines = done(work, "eval", "bundle", "m.jsonl", "--per-speaker", "--errors", "1").splitlines()
    assert ["speaker", "utterances", "words", "WER", "%", "CER", "%"] in [line.split() for line in lines]
    assert any(line.startswith("substitutions  heard") for line in lines)
    assert lines[-1].startswith("WER ")


def test_both_texts_are_normalised(work: Path) -> None:
    document = json.loads(done(work, "eval", "bundle", "m.jsonl", "--json", "--details", "--normalize"))
    assert [d["text"] for d in document["details"]] == ["two one", "two one", "four"]
    german = done(work, "eval", "bundle", "m.jsonl", "--details", "--normalize", "--language", "de")
    assert "said   two eins" in german


def test_keep_going_says_which_were_left_out(work: Path) -> None:
    result = run(work, "eval", "bundle", "bad.jsonl", "--json", "--keep-going")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [entry["audio_filepath"] for entry in document["left_out"]] == ["broken.wav", "missing.wav"]
    broken, missing = result.stderr.decode().splitlines()
    assert broken.startswith("left out: broken.wav: not readable audio")
    assert missing.startswith("left out: missing.wav: ")
    good = json.loads(done(work, "eval", "bundle", "m.jsonl", "--json"))
    assert all(document[key] == good[key] for key in ("wer", "cer", "words", "utterances", "audio_s"))
    assert "3 utterances, 2 left out" in done(work, "eval", "bundle", "bad.jsonl", "--keep-going")


REFUSED = {
    "a missing recording is found first": (("bad.jsonl",), "missing.wav: No such file (1 of 5 are missing)"),
    "a broken one ends it": (("broken.jsonl",), "or add --keep-going to leave out what"),
    "nobody named": (("nameless.jsonl", "--per-speaker"), "no line has a 'speaker'"),
    "no errors": (("m.jsonl", "--errors", "0"), "--errors is 0"),
    "no such language": (("m.jsonl", "--normalize", "--language", "xx"), "language 'xx'"),
    "no such folder": (("m.jsonl", "--html", "nowhere/page.html"), "--html nowhere/page.html"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(work: Path, case: str) -> None:
    words, match = REFUSED[case]
    refused(work, match, "eval", "bundle", *words)


def test_nothing_could_be_read(work: Path) -> None:
    (work / "none.jsonl").write_text(json.dumps({"audio_filepath": "broken.wav", "text": "one"}))
    result = run(work, "eval", "bundle", "none.jsonl", "--keep-going")
    assert result.returncode == 2
    assert b"none of the 1 recordings could be read" in result.stderr
