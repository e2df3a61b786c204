"""Long recordings cut at their pauses: where the speech was put is where the utterances are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_speech.cli import main
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.kaldi_output import write_kaldi_directory
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.segmentation import SegmentConfig, segment

RATE = 8000
SPOKEN = [(1.0, 2.5), (4.0, 4.8), (5.1, 6.0), (8.0, 8.1)]


def recording(spoken: list[tuple[float, float]], seconds: float = 10.0) -> FloatArray:
    """Loud noise where something is said, quiet noise elsewhere."""
    rng = np.random.default_rng(0)
    samples = 1e-3 * rng.standard_normal(int(seconds * RATE))
    for start, end in spoken:
        samples[int(start * RATE) : int(end * RATE)] *= 100
    return np.asarray(samples, np.float32)


def test_utterances_are_where_speech_is() -> None:
    """The pause of 0.3 s parts nothing, the click of 0.1 s is no utterance; the VAD's hangover is 0.2 s."""
    found = segment(recording(SPOKEN), RATE, SegmentConfig(margin_s=0.1, min_s=0.4))
    assert np.array(found) == pytest.approx(np.array([(0.9, 2.6), (3.9, 6.1)]), abs=0.25)


def test_times_do_not_drift_where_frames_are_no_whole_samples() -> None:
    """At 11025 Hz a frame of 10 ms is 110 samples: 9.977 ms."""
    samples = np.resize(recording([(0.0, 0.0)]), 11025 * 200)
    samples[11025 * 190 : 11025 * 192] *= 100
    (found,) = segment(samples, 11025, SegmentConfig(margin_s=0.0))
    assert found == pytest.approx((190, 192), abs=0.25)


def test_margins_never_overlap_nor_leave_the_recording() -> None:
    found = segment(recording([(0.1, 1.0), (1.9, 3.0)], 3.0), RATE, SegmentConfig(0.3, 9.0))
    times = np.array(found).ravel()
    assert len(found) == 2
    assert (times[0], times[-1]) == (0.0, pytest.approx(3.0))
    assert times[1] == pytest.approx(times[2])


def test_long_speech_is_cut_at_its_quietest_place() -> None:
    samples = recording([(0.5, 9.5)])
    samples[int(3.0 * RATE) : int(3.1 * RATE)] *= 0.3
    found = segment(samples, RATE, SegmentConfig(margin_s=0.0, max_s=4.0))
    assert found[0][1] == pytest.approx(3.05, abs=0.06)
    assert max(end - start for start, end in found) <= 4.0
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]


def test_silence_holds_nothing_and_odd_limits_are_refused() -> None:
    assert segment(np.zeros(RATE, np.float32), RATE) == []
    assert segment(np.zeros(10, np.float32), RATE) == []
    with pytest.raises(InputError, match="pause_s above 0"):
        SegmentConfig(pause_s=0.0)
    with pytest.raises(InputError, match=r"max_s is 0\.5"):
        SegmentConfig(max_s=0.5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "long.wav", recording(SPOKEN), RATE)
    command = ["data", "segment", str(tmp_path / "long.wav"), "-o", str(tmp_path / "m.jsonl")]
    assert main([*command, "--json", "--min-s", "0.4"]) == 0
    document = json.loads(capsys.readouterr().out)
    utterances = read_manifest(tmp_path / "m.jsonl", need_text=False)
    assert document["utterances"] == len(utterances) == 2
    assert sum(len(u.read()[0]) for u in utterances) / RATE == pytest.approx(document["kept_s"], abs=0.01)
    assert main(command) == 2
    assert main([*command, "--force"]) == 0
    assert "utterances" in capsys.readouterr().out


def test_kaldi_directory_of_the_same_parts(tmp_path: Path) -> None:
    names = tmp_path / "one" / "long talk.wav", tmp_path / "two" / "long talk.wav"
    for name in names:
        name.parent.mkdir()
        soundfile.write(name, recording(SPOKEN), RATE)
    command = ["data", "segment", *map(str, names), "-o", str(tmp_path / "m.jsonl")]
    assert main([*command, "--kaldi", str(tmp_path / "kaldi")]) == 0
    nemo = read_manifest(tmp_path / "m.jsonl", need_text=False)
    kaldi = read_manifest(tmp_path / "kaldi", need_text=False)
    assert len(kaldi) == len(nemo) == 4
    for mine, other in zip(kaldi, nemo, strict=True):
        assert mine.audio_path == other.audio_path
        assert mine.offset_s == other.offset_s
        assert len(mine.read()[0]) == len(other.read()[0])
    assert [u.extra["speaker"] for u in kaldi] == ["long_talk", "long_talk", "long_talk-2", "long_talk-2"]
    for name in ("wav.scp", "segments", "utt2spk", "spk2utt"):
        lines = (tmp_path / "kaldi" / name).read_text().splitlines()
        assert lines == sorted(lines)
    assert not (tmp_path / "kaldi" / "text").exists()
    assert main([*command, "--force", "--kaldi", str(tmp_path / "kaldi")]) == 2  # it may hold other things


def test_texts_and_speakers_survive_the_kaldi_directory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", recording(SPOKEN), RATE)
    spoken = [
        Utterance(tmp_path / "a.wav", "one two", 0.5, {"speaker": "bob"}, 0.25),
        Utterance(tmp_path / "a.wav", "three", 0.5, {"speaker": "ann"}, 1.0),
    ]
    write_kaldi_directory(tmp_path / "kaldi", spoken)
    read = {u.text: u for u in read_manifest(tmp_path / "kaldi")}
    for utterance in spoken:
        back = read[utterance.text]
        assert back.extra["speaker"] == utterance.extra["speaker"]
        assert (back.offset_s, back.duration_s) == (utterance.offset_s, utterance.duration_s)
        assert back.extra["utterance"].startswith(utterance.extra["speaker"])
    with pytest.raises(InputError, match="takes for a command"):
        write_kaldi_directory(tmp_path / "k", [Utterance(tmp_path / "a|b.wav", "", 0.5, {}, 0.25)])
    assert not (tmp_path / "k").exists()
