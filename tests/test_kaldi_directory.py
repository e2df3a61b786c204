"""Kaldi directories: the same utterances as a NeMo manifest of them, wherever audio is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_speech.audio import read_audio
from edge_speech.errors import InputError
from edge_speech.evaluation import evaluate
from edge_speech.manifest import read_manifest
from edge_speech.recognizer import Recognizer
from edge_speech.training.data import read_waveform
from edge_speech_tools.recordings import from_manifest
from tiny import speech_like, write_bundle, write_wav

FILES = {
    "wav.scp": "r1 r1.wav\nr2 r2.wav\n",
    "segments": "ann-1 r1 0.10 0.60\nann-2 r1 0.60 1.00\nbob-1 r2 0.25 -1\n",
    "text": "ann-1 one two\nann-2 three\nbob-1 four\n",
    "utt2spk": "ann-1 ann\nann-2 ann\nbob-1\tbob\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    for name in ("r1.wav", "r2.wav"):
        write_wav(tmp_path / name, (speech_like(1.0) * 32767).astype(np.int16))
    return tmp_path


def test_segments_equal_the_same_parts_in_a_manifest(folder: Path) -> None:
    rows = [("r1.wav", 0.1, 0.5, "one two"), ("r1.wav", 0.6, 0.4, "three"), ("r2.wav", 0.25, 0.75, "four")]
    keys = "audio_filepath", "offset", "duration", "text"
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (folder / "m.jsonl").write_text("\n".join(lines))
    kaldi, nemo = read_manifest(folder), read_manifest(folder / "m.jsonl")
    assert [u.text for u in kaldi] == [u.text for u in nemo] == ["one two", "three", "four"]
    assert [u.extra["speaker"] for u in kaldi] == ["ann", "ann", "bob"]
    assert [u.extra["utterance"] for u in kaldi] == ["ann-1", "ann-2", "bob-1"]
    for mine, other, length in zip(kaldi, nemo, (8000, 6400, 12000), strict=True):
        assert len(mine.read()[0]) == length
        np.testing.assert_array_equal(mine.read()[0], other.read()[0])


def test_parts_reach_training_and_tools(folder: Path) -> None:
    whole, _ = read_audio(folder / "r1.wav")
    np.testing.assert_array_equal(read_waveform(read_manifest(folder)[1], 16000), whole[9600:])
    np.testing.assert_array_equal(from_manifest(folder).recordings[0].read()[0], whole[1600:9600])


def test_parts_reach_evaluation(folder: Path) -> None:
    scores, decoded = evaluate(Recognizer.load(write_bundle(folder / "bundle")), read_manifest(folder), True)
    assert scores.audio_s == pytest.approx(0.5 + 0.4 + 0.75)
    assert [d.audio_filepath for d in decoded] == [str(folder / n) for n in ("r1.wav", "r1.wav", "r2.wav")]


def test_without_segments_whole_files(folder: Path) -> None:
    (folder / "segments").unlink()
    (folder / "text").write_text("r1 one\nr2 two\n")
    (folder / "utt2spk").unlink()
    one, two = read_manifest(folder)
    assert (one.audio_path, one.text, one.offset_s, two.extra) == (
        folder / "r1.wav",
        "one",
        None,
        {"utterance": "r2"},
    )


def test_relative_paths_may_start_in_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "wav").mkdir()
    (folder / "r1.wav").rename(folder / "wav" / "r1.wav")
    (folder / "data").mkdir()
    for name in FILES:
        (folder / name).rename(folder / "data" / name)
    (folder / "data" / "wav.scp").write_text("r1 wav/r1.wav\nr2 r2.wav\n")
    monkeypatch.chdir(folder)
    assert [len(u.read()[0]) for u in read_manifest("data")] == [8000, 6400, 12000]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("wav.scp", "r1 sph2pipe -f wav r1.sph |\n", r"wav\.scp:1: .*run it first"),
        ("wav.scp", "r1 raw.ark:17\n", "no audio file"),
        ("wav.scp", "r1 r1.wav\nr1 r1.wav\n", r"wav\.scp:2: 'r1' comes twice"),
        ("wav.scp", "r1 r1.wav\n", r"segments:3: recording 'r2' is not in"),
        ("segments", "ann-1 r1 0.5 0.5\n", "start and end are 0.5 and 0.5"),
        ("segments", "ann-1 r1 a 0.5\n", "start and end are a and 0.5"),
        ("segments", "ann-1 r1 0.5\n", "expected `recording start end`"),
        ("text", "ann-1 one\n", "nothing for 'ann-2'"),
    ],
)
def test_mistakes(folder: Path, name: str, content: str, match: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=match):
        read_manifest(folder)


def test_incomplete_directories(folder: Path) -> None:
    (folder / "text").unlink()
    assert [u.text for u in read_manifest(folder, need_text=False)] == ["", "", ""]
    with pytest.raises(InputError, match="no text; a Kaldi directory has"):
        read_manifest(folder)
    (folder / "wav.scp").unlink()
    with pytest.raises(InputError, match=r"no wav\.scp"):
        read_manifest(folder, need_text=False)
