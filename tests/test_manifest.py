"""Data manifests and target profiles: what is read, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_speech.errors import InputError
from edge_speech.manifest import read_manifest
from edge_speech.target import list_targets, load_target, read_target

GOOD = '{"audio_filepath": "a/b.wav", "duration": 1.5, "text": "one two", "speaker": "x"}\n'


def test_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(GOOD + "\n" + '{"audio_filepath": "/abs.wav", "text": ""}\n')
    one, two = read_manifest(tmp_path / "m.jsonl")
    assert (one.audio_path, one.text, one.duration_s) == (tmp_path / "a/b.wav", "one two", 1.5)
    assert one.extra == {"speaker": "x"}
    assert (two.audio_path, two.duration_s) == (Path("/abs.wav"), None)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"text": "a"}', "audio_filepath"),
        ('{"audio_filepath": 3, "text": "a"}', "audio_filepath"),
        ('{"audio_filepath": "a"}', "'text'"),
        ('{"audio_filepath": "a", "text": "a", "duration": NaN}', "duration"),
        ('{"audio_filepath": "a", "text": "a", "duration": "1"}', "duration"),
        ("\x00\xff", "not JSON"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, line: str, match: str) -> None:
    (tmp_path / "m.jsonl").write_text(GOOD + line + "\n", encoding="latin-1")
    with pytest.raises(InputError, match=rf"m\.jsonl:2: .*{match}"):
        read_manifest(tmp_path / "m.jsonl")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such manifest"):
        read_manifest(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(InputError, match="empty manifest"):
        read_manifest(tmp_path / "m.jsonl")
    (tmp_path / "noise.jsonl").write_text('{"audio_filepath": "a"}\n')
    assert read_manifest(tmp_path / "noise.jsonl", need_text=False)[0].text == ""


def test_every_profile_reads_and_typos_are_met_with_near_names() -> None:
    names = [target.name for target in list_targets()]
    assert {"linux-x86_64", "linux-arm64", "android-arm64", "jetson-orin"} <= set(names)
    assert load_target("linux-arm64").arch == "aarch64"
    with pytest.raises(InputError, match="did you mean linux-arm64"):
        load_target("linux-arm")
    with pytest.raises(InputError, match="linux-x86_64"):
        load_target("../targets/linux-x86_64")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("cores = 2", "cores = 0", "'cores'.*from 1"),
        ("cores = 2", 'cores = "2"', "'cores'"),
        ('prefer = "speed"', 'prefer = "beauty"', "'prefer'.*speed, size"),
        ('backends = ["x"]', "backends = []", "'backends'"),
        ("[device]", "[gadget]", "device"),
        ("[device]", "[device", "not TOML"),
        ("latency_budget_ms = 50", "latency_budget_ms = inf", "'latency_budget_ms'"),
    ],
)
def test_odd_profiles(tmp_path: Path, old: str, new: str, match: str) -> None:
    text = 'name = "t"\ndescription = "d"\n[device]\narch = "a"\ncores = 2\nram_mib = 1\n'
    text += '[optimize]\nbackends = ["x"]\nprecisions = ["fp32"]\nprefer = "speed"\nlatency_budget_ms = 50\n'
    (tmp_path / "t.toml").write_text(text)
    assert read_target(tmp_path / "t.toml").recipe == {}
    (tmp_path / "t.toml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=match):
        read_target(tmp_path / "t.toml")
