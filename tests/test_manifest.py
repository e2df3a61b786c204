"""Data manifests: what is read, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_speech.errors import InputError
from edge_speech.manifest import read_manifest

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
