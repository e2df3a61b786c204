"""The README's commands and Python, pasted in order into an empty folder with the examples in it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edge_speech.manifest import read_manifest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRUTH = {u.audio_path.name: u.text for u in read_manifest(ROOT / "examples" / "digits" / "clips.jsonl")}


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def run(arguments: list[str], folder: Path) -> str:
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | path,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder after all commands, and what each printed."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    output = {}
    for command in commands():
        program, *arguments = shlex.split(command)
        assert program == "edge-speech"
        output[command] = run(["-m", "edge_speech", *arguments], folder)
    return folder, output


def test_commands_run_and_leave_what_they_say(pasted: tuple[Path, dict[str, str]]) -> None:
    folder, output = pasted
    assert len(output) >= 8
    assert {"bundle", "bench.html", "digits.esb"} <= {p.name for p in folder.iterdir()}
    assert "linux-x86_64" in next(text for command, text in output.items() if command.endswith("targets"))


def test_transcripts_are_right(pasted: tuple[Path, dict[str, str]]) -> None:
    _, output = pasted
    transcribed = {c: text for c, text in output.items() if " transcribe " in c}
    assert transcribed
    for command, text in transcribed.items():
        clip = next(name for name in TRUTH if name in command)
        assert TRUTH[clip] in text


def test_python_block_runs(pasted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = pasted
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    assert TRUTH["0000_george.flac"] in run(["-c", code], folder)


def test_compose_script_joins_recordings(tmp_path: Path) -> None:
    script, clips = ROOT / "examples" / "digits" / "compose.py", ROOT / "examples" / "digits" / "clips.jsonl"
    run([str(script), str(clips), "-o", "strings", "--count", "4", "--digits", "2"], tmp_path)
    strings = read_manifest(tmp_path / "strings.jsonl")
    assert [len(u.text.split()) for u in strings] == [10, 10, 15, 10]
    assert all(u.audio_path.is_file() and u.duration_s for u in strings)
