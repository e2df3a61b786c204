"""Corpora in their official layouts become manifests; what is incomplete is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_speech import corpora
from edge_speech.cli import main
from edge_speech.corpus import normalise
from edge_speech.errors import InputError
from edge_speech.manifest import read_manifest
from edge_speech.prepare import prepare
from edge_speech.training.torchaudio_import import import_torchaudio
from official_layouts import LAYOUTS

EXPECTED = {
    "librispeech": {
        "train-clean-100": (2, "it's chapter one", {"speaker": "14", "gender": "f"}),
        "dev-clean": (2, "it's chapter one", {"speaker": "84"}),
    },
    "aishell1": {
        "train": (1, "而对楼市成交", {"speaker": "S0002"}),
        "dev": (1, "而对楼市成交", {"speaker": "S0724"}),
        "test": (1, "而对楼市成交", {"speaker": "S0764"}),
    },
    "speechcommands": {
        "train": (2, "no", {"speaker": "cc"}),
        "validation": (1, "yes", {"speaker": "aa"}),
        "test": (1, "no", {"speaker": "bb"}),
        "noise": (1, "", {}),
    },
    "fsdd": {
        "train": (450, "zero", {"speaker": "george"}),
        "test": (50, "zero", {"speaker": "george"}),
    },
    "speechocean762": {
        "train": (1, "we call it bear", {"speaker": "0001", "age": 6, "gender": "m"}),
        "test": (1, "we call it bear", {"speaker": "0003", "age": 6, "gender": "m"}),
    },
    "ljspeech": {
        "train": (2, "in fourteen fifty five", {"speaker": "lj"}),
        "dev": (250, "in fourteen fifty five", {"speaker": "lj"}),
        "test": (250, "in fourteen fifty five", {"speaker": "lj"}),
    },
}


@pytest.mark.parametrize("name", corpora.available())
def test_official_splits(tmp_path: Path, name: str) -> None:
    LAYOUTS[name](tmp_path / "corpus")
    document = prepare(name, tmp_path / "corpus", tmp_path / "out", quiet=True)
    written = {path.stem for path in (tmp_path / "out").iterdir()}
    assert written == {Path(s["manifest"]).stem for s in document["splits"]} == set(EXPECTED[name])
    for split, (count, text, extra) in EXPECTED[name].items():
        utterances = read_manifest(tmp_path / "out" / f"{split}.jsonl", need_text=bool(text))
        samples, rate = utterances[0].read()
        assert (len(utterances), utterances[0].text) == (count, text)
        assert utterances[0].extra == {"sample_rate": rate, **extra}
        assert utterances[0].duration_s == pytest.approx(len(samples) / rate, abs=1e-4)


@pytest.mark.parametrize("name", corpora.available())
def test_the_inner_folder_does_as_well(tmp_path: Path, name: str) -> None:
    LAYOUTS[name](tmp_path / "corpus")
    inner = [p for p in (tmp_path / "corpus").iterdir() if p.name != "recordings"] or [tmp_path / "corpus"]
    assert prepare(name, inner[0], tmp_path / "out", quiet=True)["splits"]


@pytest.mark.parametrize("name", corpora.available())
def test_missing_audio_is_named_and_nothing_written(tmp_path: Path, name: str) -> None:
    LAYOUTS[name](tmp_path / "corpus")
    needed = [p for p in tmp_path.rglob("*.*") if p.suffix.lower() in (".wav", ".flac")]
    free = "noise", "W0999", "cc_"  # what no list of the corpus names
    gone = sorted(p for p in needed if not any(part in p.name for part in free))
    gone[-1].unlink()
    with pytest.raises(InputError, match=f"{gone[-1].stem}.* missing"):
        prepare(name, tmp_path / "corpus", tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", corpora.available())
def test_an_empty_folder_says_where_the_corpus_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="unpack the corpus there: https://"):
        prepare(name, tmp_path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("name", "gone", "match"),
    [
        ("librispeech", "LibriSpeech/dev-clean/84/208/84-208.trans.txt", r"84-208\.trans\.txt: is missing"),
        ("librispeech", "LibriSpeech/dev-clean/84", r"dev-clean: holds no SPEAKER/CHAPTER"),
        ("aishell1", "data_aishell/wav/dev", r"no dev; .*tar xzf"),
        ("aishell1", "data_aishell/transcript", r"aishell_transcript_v0\.8\.txt: is missing"),
        ("speechcommands", "speech_commands_v0.02/testing_list.txt", r"testing_list\.txt: is missing"),
        ("speechocean762", "speechocean762/test", "no test; unpack it again"),
        ("speechocean762", "speechocean762/train/text", "no text"),
        ("speechocean762", "speechocean762/train/spk2age", "spk2age: is missing"),
    ],
)
def test_incomplete_layouts(tmp_path: Path, name: str, gone: str, match: str) -> None:
    LAYOUTS[name](tmp_path)
    lost = tmp_path / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    with pytest.raises(InputError, match=match):
        prepare(name, tmp_path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("LJ001-0001|One|one\nLJ001-0002|Two\n", r"metadata\.csv:2: 2 fields, not 3"),
        ("LJ001-0001|One|one\n", "1 of 13100 lines; unpack it again"),
    ],
)
def test_damaged_ljspeech_texts(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(InputError, match=match):
        prepare("ljspeech", tmp_path, tmp_path / "out", quiet=True)


def test_ljspeech_splits_are_in_order(tmp_path: Path) -> None:
    LAYOUTS["ljspeech"](tmp_path)
    splits = corpora.read_corpus("ljspeech", tmp_path).splits
    assert [splits[name][0].audio_path.stem for name in ("train", "dev", "test")] == [
        "LJ001-0001",
        "LJ001-0003",
        "LJ002-0002",
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUTS["librispeech"](tmp_path)
    command = ["data", "prepare", "librispeech", str(tmp_path), "-o", str(tmp_path / "LibriSpeech")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "dev-clean.jsonl  2 utterances, 0.00 h" in out
    assert "train-other-500, dev-other" in out
    first = (tmp_path / "LibriSpeech" / "dev-clean.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["audio_filepath"] == "dev-clean/84/208/84-208-0000.flac"  # both can move
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["absent"]) == 5


def test_one_damaged_header_and_nothing_is_written(tmp_path: Path) -> None:
    LAYOUTS["aishell1"](tmp_path)
    (last,) = (tmp_path / "data_aishell" / "wav" / "test").glob("*/*.wav")
    last.write_bytes(b"RIFF0000WAVE")
    with pytest.raises(InputError, match="cut off"):
        prepare("aishell1", tmp_path, tmp_path / "out", quiet=True)
    assert not list((tmp_path / "out").iterdir())


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: aishell1, fsdd"):
        prepare("timit", tmp_path, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        prepare("fsdd", tmp_path / "gone", tmp_path)


def test_normalised_text() -> None:
    assert normalise("  IT'S  a “Test”,\tno. 5—ÄÖ! ") == "it's a test no 5 äö"


@pytest.mark.parametrize("beside", [False, True])
def test_archives_that_lie_there_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    LAYOUTS["librispeech"](tmp_path / "corpus")
    archive = tmp_path / "dev-clean.tar.gz" if beside else tmp_path / "corpus" / "dev-clean.tar.gz"
    archive.write_bytes(b"abc")
    with pytest.raises(
        InputError, match=r"is damaged: its SHA-256 begins with ba7816bf, published is 76f87d09"
    ):
        prepare("librispeech", tmp_path / "corpus", tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
    known = {
        "dev-clean.tar.gz": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }  # FIPS 180-2
    monkeypatch.setattr("edge_speech.corpora.librispeech.ARCHIVES", known)
    document = prepare("librispeech", tmp_path / "corpus", tmp_path / "out", quiet=True)
    assert document["archives"] == ["dev-clean.tar.gz"]


def test_known_checksums_are_those_of_torchaudio() -> None:
    module = import_torchaudio("torchaudio.datasets.librispeech")
    theirs = {url.rsplit("/", 1)[1]: digest for url, digest in module._CHECKSUMS.items()}
    assert corpora.archives("librispeech") == theirs
    commands = import_torchaudio("torchaudio.datasets.speechcommands")._CHECKSUMS.values()
    assert set(corpora.archives("speechcommands").values()) <= set(commands)
    release = import_torchaudio("torchaudio.datasets.ljspeech")._RELEASE_CONFIGS["release1"]
    assert list(corpora.archives("ljspeech").values()) == [release["checksum"]]
