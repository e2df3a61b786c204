"""Lhotse's cuts and Hugging Face data sets, wherever a manifest is read."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from torch.utils.data import DataLoader

from edge_speech.cli import main
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import FbankConfig
from edge_speech.manifest import read_manifest
from edge_speech.training.audio_cache import AudioCache
from edge_speech.training.data import Recordings, TrainingSet
from edge_speech.training.recipe import Data, Optimizer, Recipe, Source
from edge_speech.training.tokens import Tokens
from edge_speech_tools.recordings import from_manifest
from tiny import speech_like, write_bundle

GOLDEN = Path(__file__).parent / "golden" / "huggingface"  # made by golden/make_huggingface.py
TEXTS = ["one two", "three", "four five"]


@pytest.fixture
def cuts(tmp_path: Path) -> CutSet:
    """Two parts of one file; the second has two supervisions, the later first."""
    soundfile.write(tmp_path / "long.flac", speech_like(3.0), 16000)
    recording = Recording.from_file(tmp_path / "long.flac")

    def said(name: str, start: float, text: str) -> SupervisionSegment:
        return SupervisionSegment(name, recording.id, start, 0.5, text=text, speaker="ann")

    one = MonoCut("c1", 0.25, 1.0, 0, supervisions=[said("s1", 0.0, "one")], recording=recording)
    two = [said("s3", 0.5, "three"), said("s2", 0.0, "two")]
    return CutSet.from_cuts([one, MonoCut("c2", 1.5, 1.5, 0, supervisions=two, recording=recording)])


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "cuts.jsonl"])
def test_cuts_are_what_lhotse_reads(cuts: CutSet, tmp_path: Path, name: str) -> None:
    cuts.to_file(tmp_path / name)
    utterances = read_manifest(tmp_path / name)
    assert [u.text for u in utterances] == ["one", "two three"]
    assert utterances[0].extra == {"utterance": "c1", "sample_rate": 16000, "speaker": "ann"}
    for utterance, cut in zip(utterances, cuts, strict=True):
        samples, rate = utterance.read()
        assert rate == 16000
        assert np.array_equal(samples, cut.load_audio()[0])


def test_cuts_that_are_no_plain_part_of_a_file_are_refused(cuts: CutSet, tmp_path: Path) -> None:
    first = next(iter(cuts))
    for cut, message in (
        (first.append(first.with_id("again")), "a MixedCut; .*save_audios"),
        (first.perturb_speed(1.1), "a recording with transforms"),
    ):
        CutSet.from_cuts([cut]).to_file(tmp_path / "odd.jsonl")
        with pytest.raises(InputError, match=rf"odd\.jsonl:1: {message}"):
            read_manifest(tmp_path / "odd.jsonl")


def changed(cut: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**cut, **changes}


def test_damaged_cuts_are_named(cuts: CutSet, tmp_path: Path) -> None:
    cut = next(iter(cuts)).to_dict()
    path = tmp_path / "m.jsonl"
    streamed = {**cut["recording"], "sources": [{"type": "url", "source": "x", "channels": [0]}]}
    for line, message in (
        (changed(cut, recording=None), "'recording'|recording"),
        (changed(cut, start="0"), "'start' must be a finite number"),
        (changed(cut, supervisions=[]), "a cut without a text"),
        (changed(cut, supervisions=5), "'supervisions' must be a list"),
        (changed(cut, recording=streamed), "not one file"),
    ):
        path.write_text(json.dumps(line) + "\n")
        with pytest.raises(InputError, match=message):
            read_manifest(path)
    whole = gzip.compress(json.dumps(cut).encode())
    for content in (whole[:-9], b"no gzip", whole[:20] + b"\xff" * 20):
        (tmp_path / "m.jsonl.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"m\.jsonl\.gz: damaged"):
            read_manifest(tmp_path / "m.jsonl.gz")


@pytest.mark.parametrize("name", ["saved", "dict/train", "data.parquet"])
def test_hugging_face_data_sets(name: str) -> None:
    utterances = read_manifest(GOLDEN / name)
    assert [u.text for u in utterances] == TEXTS
    assert [u.extra["speaker"] for u in utterances] == ["s0", "s1", "s0"]
    for row, utterance in enumerate(utterances):
        samples, rate = utterance.read()
        assert rate == 8000
        assert np.array_equal(samples, tone(row))
    again = pickle.loads(pickle.dumps(utterances[1]))  # as a worker process gets it
    assert np.array_equal(again.read()[0], tone(1))


def tone(row: int) -> FloatArray:
    whole = np.sin(np.arange(400) * (0.2 + 0.1 * row)) * 8000
    return (whole.astype("<i2") / 32768).astype(np.float32)


def test_a_row_of_every_group_is_found(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(GOLDEN / "data.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "small.parquet", row_group_size=1)
    utterances = read_manifest(tmp_path)  # a folder of Parquet files
    for row in (2, 0, 1, 1):
        assert np.array_equal(utterances[row].read()[0], tone(row))
    renamed = table.rename_columns(["audio", "words", "speaker"])
    pyarrow.parquet.write_table(renamed, tmp_path / "small.parquet")
    with pytest.raises(InputError, match="no text in the columns words, speaker; rename"):
        read_manifest(tmp_path)
    assert [u.text for u in read_manifest(tmp_path, need_text=False)] == ["", "", ""]


def test_audio_beside_the_data_set(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    soundfile.write(tmp_path / "beside.wav", tone(1), 8000, subtype="FLOAT")
    audio = [{"bytes": None, "path": "beside.wav"}, {"bytes": None, "path": None}]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {"audio": pyarrow.array(audio, kind), "text": ["one", "two"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    first, second = read_manifest(tmp_path / "m.parquet")
    assert np.array_equal(first.read()[0], tone(1))
    with pytest.raises(InputError, match=r"m\.parquet: row 1: no audio"):
        second.read()


@pytest.mark.parametrize("name", ["saved", "data.parquet"])
def test_worker_processes_read_data_sets(name: str) -> None:
    data = Data(
        (Source(name),), str(GOLDEN), units="words", vocabulary=("one", "two", "three", "four", "five")
    )
    recipe = Recipe(data, optimizer=Optimizer(steps=4, batch_size=2))
    frontend = FbankConfig(sample_rate=8000)
    training_set = TrainingSet(recipe, Tokens.build("words", [], data.vocabulary), frontend)
    alone, together = (
        list(
            DataLoader(training_set, sampler=range(4), batch_size=None, num_workers=workers, timeout=timeout)
        )
        for workers, timeout in ((0, 0), (2, 100))
    )
    assert all(torch.equal(a.features, b.features) for a, b in zip(alone, together, strict=True))


def test_what_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has the splits test, train; give one of them"):
        read_manifest(GOLDEN / "dict")
    for name in ("x.parquet", "x.arrow"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=rf"{name}: not a data set"):
            read_manifest(tmp_path / name)
    shutil.copytree(GOLDEN / "saved", tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    with pytest.raises(InputError, match="not a data set"):
        read_manifest(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"state\.json: damaged"):
        read_manifest(tmp_path / "saved")


def test_they_reach_training_evaluation_tools_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = Tokens.build("words", TEXTS, ())
    recordings = Recordings(Source("saved"), GOLDEN, 8000, tokens, AudioCache(tmp_path / "cache"))
    for _ in range(2):  # decoded, then from the cache
        assert all(np.array_equal(recordings.waveform(row), tone(row)) for row in range(3))
    assert recordings.seconds([0]) == pytest.approx(0.05)
    assert np.array_equal(from_manifest(GOLDEN / "data.parquet").recordings[2].read()[0], tone(2))
    bundle = write_bundle(tmp_path / "bundle")
    assert main(["eval", str(bundle), str(GOLDEN / "data.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == 3
    assert main(["data", "validate", str(GOLDEN / "saved"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sets"][0]["speakers"] == 2


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(InputError, match=r"pip install \"edge-speech\[huggingface\]\""):
        read_manifest(GOLDEN / "saved")
