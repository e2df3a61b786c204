"""`edge-speech keywords`: scores, peaks and rates against plain loops, and what it refuses."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_speech.cli import main
from edge_speech.errors import InputError
from edge_speech.keywords import detections, keywords_of, log_odds, peaks, places, spot, trade_off
from edge_speech.manifest import read_manifest
from edge_speech.recognizer import Recognizer
from edge_speech.training.augment import rms
from edge_speech.training.data import read_waveform
from tiny import TOKENS, speech_like, write_bundle, write_wav

SAID = ("one", "two", "th", "ree", "four", "two")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of five tokens, a recording of each and one more, and two manifests without keywords."""
    folder = tmp_path_factory.mktemp("keywords")
    write_bundle(folder / "bundle")
    for name, count, seconds in (("said", len(SAID), 1.5), ("other", 3, 6.0), ("more", 2, 4.0)):
        lines = []
        for i in range(count):
            samples = speech_like(seconds, seed=10 * i + len(name))
            write_wav(folder / f"{name}{i}.wav", (samples * 32767).astype(np.int16))
            text = {"text": SAID[i]} if name == "said" else {}
            lines.append(json.dumps({"audio_filepath": f"{name}{i}.wav", **text}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON of `edge-speech keywords`, or the one line with which it refuses."""
    code = main(["keywords", *map(str, words), "--quiet", "--json"])
    out, err = capsys.readouterr()
    if code == 0:
        return json.loads(out)
    assert (code, err.count("\n"), out) == (2, 1, "")
    return err


def test_log_odds_are_of_the_posteriors_and_do_not_saturate() -> None:
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(4), 30)).astype(np.float32)
    p = np.exp(log_probs.astype(np.float64))
    assert log_odds(log_probs) == pytest.approx(np.log(p / (1 - p)), abs=1e-5)
    sure = np.array([[-1e-12, -28.0], [-1e-13, -30.0]], np.float32)
    assert log_odds(sure)[:, 0] == pytest.approx([28.0, 30.0])


def test_peaks_are_the_highest_with_a_distance() -> None:
    scores = np.array([0.0, 5.0, 4.0, 1.0, 3.0, 3.5, -np.inf])
    assert peaks(scores, 3).tolist() == [5.0, 3.5]
    assert peaks(scores, 1).tolist() == [5.0, 4.0, 3.5, 3.0, 1.0, 0.0]
    assert peaks(scores[:0], 3).tolist() == []


def test_the_figures_are_those_of_a_plain_loop_over_the_streams_posteriors(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(capsys, work / "bundle", work / "said.jsonl", "--negatives", work / "other.jsonl",
        work / "more.jsonl", "--false-accepts-per-hour", "400", "--refractory-s", "0.4",)  # fmt: skip
    recognizer = Recognizer.load(work / "bundle")
    posteriors = {}
    for name in ("said", "other", "more"):
        for u in read_manifest(work / f"{name}.jsonl", need_text=False):
            stream = recognizer.create_stream(keep_log_probs=True)
            stream.accept_waveform(*u.read())
            stream.input_finished()
            posteriors[u.audio_path.stem] = np.exp(stream.log_probs().astype(np.float64))
    assert document["negatives"] == 5
    assert document["negative_hours"] == pytest.approx(26 / 3600, abs=1e-4)
    for k, line in enumerate(document["keywords"][:-1], start=1):
        assert line["keyword"] == keywords_of(recognizer)[k - 1]
        best = {name: rows[:, k].max() for name, rows in posteriors.items()}
        own = [best[f"said{i}"] for i, text in enumerate(SAID) if text == line["keyword"]]
        rest = [best[f"said{i}"] for i, text in enumerate(SAID) if text != line["keyword"]]
        assert line["recordings"] == len(own)
        above = line["threshold"] + 1e-6  # log_probs are float32
        assert line["false_rejects"] == pytest.approx(100 * np.mean([p <= above for p in own]), abs=0.01)
        assert line["confused"] == pytest.approx(100 * np.mean([p > above for p in rest]), abs=0.01)
        negatives = [rows[:, k] for name, rows in posteriors.items() if not name.startswith("said")]
        fired = sum(_fires(rows, above) for rows in negatives)
        assert line["false_accepts_per_hour"] == pytest.approx(fired * 3600 / 26, rel=1e-4)
        assert fired <= 2


def _fires(posterior: np.ndarray, threshold: float) -> int:
    """Peaks over the threshold, each the highest of those at least 10 rows (0.4 s) from the ones before."""
    places_left, count = {t for t, p in enumerate(posterior) if p > threshold}, 0
    while places_left:
        top = max(places_left, key=lambda t: posterior[t])
        places_left = {t for t in places_left if abs(t - top) >= 10}
        count += 1
    return count


def test_all_have_one_threshold_and_what_was_decoded_is_counted(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recognizer = Recognizer.load(work / "bundle")
    keywords = keywords_of(recognizer)
    assert keywords == [t.replace("▁", "") for t in TOKENS[1:]]
    said = spot(recognizer, read_manifest(work / "said.jsonl"), quiet=True)
    other = spot(recognizer, read_manifest(work / "other.jsonl", need_text=False), quiet=True)
    last = detections(keywords, said, other, 400)[-1]
    pooled = sorted(np.concatenate(other.peaks), reverse=True)
    assert (last.keyword, last.count) == ("all", len(SAID))
    assert last.point.threshold == pooled[2]  # 400 an hour are two in 18 seconds
    own = [said.best[i, keywords.index(text)] for i, text in enumerate(SAID)]
    assert last.point.false_reject_rate == np.mean([s <= pooled[2] for s in own])
    accepts, rejects = trade_off(keywords, said, other)["all"]
    assert (accepts[2], rejects[2]) == (pytest.approx(400), last.point.false_reject_rate)
    document = run(capsys, work / "bundle", work / "said.jsonl", "--negatives", work / "other.jsonl")
    hits = [Recognizer.transcribe(recognizer, work / f"said{i}.wav").text for i in range(len(SAID))]
    right = sum(text == heard for text, heard in zip(SAID, hits, strict=True))
    assert document["decoded"]["wrong"] == pytest.approx(100 * (1 - right / len(SAID)), abs=0.01)
    assert document["decoded"]["false_accepts_per_hour"] == pytest.approx(
        sum(map(len, other.decoded)) * 3600 / 18
    )


def test_the_held_out_part_of_a_manifest_is_written(work: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "examples" / "wake_word" / "heldout.py"
    write_fold = runpy.run_path(str(script))["write_fold"]
    assert write_fold(work / "said.jsonl", tmp_path / "part.jsonl", "1/3") == 2
    part = read_manifest(tmp_path / "part.jsonl")
    assert [u.text for u in part] == ["two", "four"]
    assert [u.audio_path.resolve().name for u in part] == ["said1.wav", "said4.wav"]
    assert all(u.audio_path.is_file() for u in part)


def test_keywords_are_put_between_speech_of_their_level(work: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "wake_word" / "between.py"))
    said, speech = (read_manifest(work / f"{name}.jsonl", need_text=False) for name in ("said", "other"))
    assert script["write_between"](said, speech, tmp_path / "between", 0) == len(said)
    found = read_manifest(tmp_path / "between.jsonl")
    assert [u.text for u in found] == [u.text for u in said]
    for inside, alone in zip(found, said, strict=True):
        samples, own = read_waveform(inside, 16000), read_waveform(alone, 16000)
        assert np.allclose(samples[48000:-32000], own, atol=1e-4)
        assert rms(samples[:48000]) == pytest.approx(rms(own), rel=0.02)
        assert rms(samples[-32000:]) == pytest.approx(rms(own), rel=0.02)
    with pytest.raises(SystemExit, match=r"none is longer than 3\.0 s"):
        script["write_between"](said, said, tmp_path / "none", 0)


def test_the_table_and_the_picture(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curve.png"
    command = ["keywords", work / "bundle", work / "said.jsonl", "--negatives", work / "other.jsonl"]
    assert main([*map(str, command), "--plot", str(picture), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*SAID, "all", "missed %", "as decoded, without a threshold"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]


def test_what_does_not_fit_is_refused_before_the_work(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, said, other = work / "bundle", work / "said.jsonl", work / "other.jsonl"
    lines = said.read_text().splitlines()
    odd, few = work / "odd.jsonl", work / "few.jsonl"
    odd.write_text(said.read_text().replace('"four"', '"five"'))
    few.write_text("\n".join(lines[1:]))
    start = (bundle, said, "--negatives")
    assert "'five' is no keyword" in run(capsys, bundle, odd, "--negatives", other)
    assert "no recording says 'one'" in run(capsys, bundle, few, "--negatives", other)
    assert "says 'one', so it is no negative" in run(capsys, *start, said)
    assert "--refractory-s is -1.0" in run(capsys, *start, other, "--refractory-s", "-1")
    assert "--false-accepts-per-hour is nan" in run(capsys, *start, other, "--false-accepts-per-hour", "nan")
    assert "no such directory" in run(capsys, *start, other, "--plot", tmp_path / "none" / "a.png")
    with pytest.raises(InputError, match="'eins' is no keyword; this bundle has one, two"):
        places(["one", "two"], ["one", "eins"])
    assert math.isinf(peaks(np.array([-np.inf]), 1).max(initial=-np.inf))
