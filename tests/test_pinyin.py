"""Chinese texts in pinyin, and manifests of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_speech.cli import main
from edge_speech.manifest import read_manifest
from edge_speech.pinyin import romanizer


@pytest.mark.parametrize(
    ("text", "plain", "toned"),
    [
        ("设定二十九度", "she ding er shi jiu du", "she4 ding4 er4 shi2 jiu3 du4"),
        ("中国银行行长", "zhong guo yin hang hang zhang", "zhong1 guo2 yin2 hang2 hang2 zhang3"),
        (
            "星巴克咖啡(虹桥店)。",
            "xing ba ke ka fei hong qiao dian",
            "xing1 ba1 ke4 ka1 fei1 hong2 qiao2 dian4",
        ),
        ("绿色的 KTV", "lv se de ktv", "lv4 se4 de5 ktv"),
        ("", "", ""),
    ],
)
def test_spelling(text: str, plain: str, toned: str) -> None:
    assert romanizer()(text) == plain
    assert romanizer(tones=True)(text) == toned


def test_manifest_in_another_folder_finds_its_recordings(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    out.mkdir()
    rows = [
        {"audio_filepath": "a.wav", "duration": 1.5, "text": "设定", "speaker": "S1"},
        {"audio_filepath": "b.wav", "offset": 2.0, "duration": 1.0, "text": "二十"},
    ]
    (corpus / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["data", "pinyin", str(corpus / "train.jsonl"), "-o", str(out / "train.jsonl")]
    assert main([*command, "--quiet"]) == 0
    first, second = read_manifest(out / "train.jsonl")
    assert first.audio_path.resolve() == (corpus / "a.wav").resolve()
    assert (first.text, first.duration_s, first.extra["speaker"]) == ("she ding", 1.5, "S1")
    assert (second.text, second.offset_s) == ("er shi", 2.0)
    assert main([*command, "--quiet"]) == 2  # there is one
    assert main([*command, "--quiet", "--tones", "--force"]) == 0
    assert read_manifest(out / "train.jsonl")[0].text == "she4 ding4"


def test_texts_without_hanzi_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "en.jsonl").write_text('{"audio_filepath": "a.wav", "text": "one two"}\n')
    assert main(["data", "pinyin", str(tmp_path / "en.jsonl"), "-o", str(tmp_path / "out.jsonl")]) == 2
    assert "no text of it changes in pinyin" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
