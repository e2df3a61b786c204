"""The commands that end well: JSON keys, exit codes, pipes, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_speech import cli
from edge_speech.bundle import GOLDEN_LOG_PROBS, describe_file, read_bundle
from edge_speech.recognizer import Recognizer
from test_errors import PLAIN, run
from tiny import SPEC, TOKENS, edit, speech_like, write_bundle, write_wav

INTS = (speech_like(2) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_bundle(folder / "bundle")
    write_wav(folder / "a.wav", INTS)
    write_wav(folder / "b.wav", INTS[:9000], 8000)
    lines = [{"audio_filepath": f"{n}.wav", "duration": 1, "text": "two one"} for n in "ab"]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def done(work: Path, *words: str, stdin: bytes = b"") -> str:
    result = run(work, *words, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_transcribe_json(work: Path) -> None:
    document = json.loads(done(work, "transcribe", "bundle", "a.wav", "b.wav", "--json", "--quiet"))
    expected = Recognizer.load(work / "bundle").transcribe(work / "a.wav")
    assert [entry["audio_filepath"] for entry in document] == ["a.wav", "b.wav"]
    assert list(document[0]) == ["audio_filepath", "text", "tokens", "words", "audio_s", "rtf"]
    assert document[0]["text"] == expected.text
    assert list(document[0]["tokens"][0]) == ["token", "start_s", "end_s", "confidence"]
    assert document[0]["tokens"][0]["token"] in TOKENS
    assert document[0]["audio_s"] == 2.0


@pytest.mark.parametrize("chunk_ms", ["20", "100", "160"])
def test_chunks_and_whole_files_give_the_same_text(work: Path, chunk_ms: str) -> None:
    whole = done(work, "transcribe", "bundle", "a.wav")
    assert done(work, "transcribe", "bundle", "--chunk-ms", chunk_ms, "a.wav") == whole
    assert whole.strip()


def test_a_beam_is_what_the_recognizer_gives(work: Path) -> None:
    stream = Recognizer.load(work / "bundle").create_stream(beam_size=8)
    stream.accept_waveform(INTS, 16000)
    stream.input_finished()
    for chunk_ms in ("30", "1000"):
        words = "transcribe", "bundle", "a.wav", "--beam-size", "8", "--chunk-ms", chunk_ms
        assert done(work, *words).strip() == stream.result.text
    details = json.loads(done(work, "eval", "bundle", "m.jsonl", "--beam-size", "8", "--details", "--json"))
    assert details["details"][0]["hypothesis"] == stream.result.text


def test_hotwords_from_a_file(work: Path) -> None:
    (work / "hotwords.txt").write_text("# wanted\nthree\t40\n")
    words = "transcribe", "bundle", "a.wav", "--hotwords", "hotwords.txt", "--json", "--quiet"
    [entry] = json.loads(done(work, *words))
    assert [h["hotword"] for h in entry["hotwords"]] == ["three"] * entry["text"].split().count("three")
    assert entry["hotwords"]
    assert all(0 <= h["start_s"] < h["end_s"] <= 2.0 for h in entry["hotwords"])


def test_pipes_give_the_same_text_and_partials(work: Path) -> None:
    whole = done(work, "transcribe", "bundle", "a.wav")
    assert done(work, "transcribe", "bundle", "-", stdin=(work / "a.wav").read_bytes()) == whole
    piped = run(work, "transcribe", "bundle", "-", stdin=INTS.astype("<i2").tobytes())
    assert piped.stdout.decode() == whole
    partials = piped.stderr.decode().splitlines()
    assert partials
    assert all(whole.startswith(line.removeprefix("... ")) for line in partials)
    assert done(work, "transcribe", "bundle", "-", "--quiet", stdin=b"") == "\n"


def test_packed_bundle_is_a_bundle(work: Path) -> None:
    packed = json.loads(done(work, "pack", "bundle", "-o", "digits.esb", "--json"))
    assert packed["bytes"] == (work / "digits.esb").stat().st_size
    assert done(work, "transcribe", "digits.esb", "a.wav") == done(work, "transcribe", "bundle", "a.wav")
    assert json.loads(done(work, "inspect", "digits.esb", "--json"))["encoder"]["chunk_frames"] == 8


def test_eval(work: Path) -> None:
    document = json.loads(done(work, "eval", "bundle", "m.jsonl", "--json"))
    keys = [
        "wer",
        "wer_ci95",
        "cer",
        "utterances",
        "words",
        "audio_s",
        "rtf",
        "backend",
        "precision",
        "decoder",
    ]
    assert list(document) == keys
    assert document["decoder"] == {"type": "greedy"}
    assert (document["utterances"], document["words"], document["audio_s"]) == (2, 4, 3.125)
    assert document["wer"] == pytest.approx(by_edit_distance(work), abs=1e-3)
    assert json.loads(done(work, "eval", "bundle", "m.jsonl", "--json", "--limit", "1"))["utterances"] == 1
    people = done(work, "eval", "bundle", "m.jsonl", "--details")
    assert people.count("said   two one") == 2
    assert "WER" in people


def by_edit_distance(work: Path) -> float:
    """WER of the manifest by the textbook recurrence."""
    recognizer, errors = Recognizer.load(work / "bundle"), 0
    for name in ("a.wav", "b.wav"):
        heard, said = recognizer.transcribe(work / name).text.split(), ["two", "one"]
        row = list(range(len(heard) + 1))
        for i, word in enumerate(said, start=1):
            previous, row = row, [i]
            for j, other in enumerate(heard, start=1):
                row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (word != other)))
        errors += row[-1]
    return 100 * errors / 4


def test_verify_passes_and_finds_a_wrong_artifact(work: Path, tmp_path: Path) -> None:
    document = json.loads(done(work, "verify", "bundle", "--json"))
    assert document["files"] == 6
    assert document["features_difference"] == 0
    (check,) = document["artifacts"]
    assert check["max_abs_difference"] < 1e-3
    assert check["agreement"] == 1
    bundle = write_bundle(tmp_path / "bundle")
    rows = np.load(bundle / GOLDEN_LOG_PROBS)
    np.save(bundle / GOLDEN_LOG_PROBS, rows + np.float32(0.01))
    entry = describe_file(bundle, GOLDEN_LOG_PROBS)
    edit(bundle, lambda d: d["golden"][2].update(sha256=entry.sha256, bytes=entry.bytes))
    result = run(tmp_path, "verify", "bundle")
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1
    assert b"golden log_probs" in result.stderr


def test_golden_array_that_claims_more_than_it_has(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    path = bundle / GOLDEN_LOG_PROBS
    path.write_bytes(path.read_bytes().replace(b"(50, 6)", b"(1000000000000, 6)".ljust(7)))
    entry = describe_file(bundle, GOLDEN_LOG_PROBS)
    edit(bundle, lambda d: d["golden"][2].update(sha256=entry.sha256, bytes=entry.bytes))
    result = run(tmp_path, "verify", "bundle")
    assert result.returncode == 2
    assert b"not a numpy array" in result.stderr


@pytest.mark.parametrize("command", ["targets", "inspect bundle", "verify bundle", "transcribe bundle a.wav"])
def test_json_is_one_document_and_people_get_lines(work: Path, command: str) -> None:
    json.loads(done(work, *command.split(), "--json"))
    assert done(work, *command.split()).strip()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_teaches(work: Path, command: str) -> None:
    text = done(work, command, "--help")
    assert "examples:" in text
    assert "--json" in text
    assert "--quiet" in text


def test_a_reader_that_leaves(work: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "edge_speech", "inspect", "bundle", "--json"]
    with subprocess.Popen(
        command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_ctrl_c_is_one_line_and_130(work: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([PLAIN, str(Path(__file__).parent.parent)])}
    command = [sys.executable, "-m", "edge_speech", "transcribe", "bundle", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=work, env=env, **pipes) as process:
        process.stdin.write(INTS.tobytes())
        process.stdin.flush()
        assert process.stderr.readline().startswith(b"...")  # it is listening now
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
        assert process.wait(60) == cli.EXIT_INTERRUPTED
    assert rest.splitlines()[-1] == "edge-speech: interrupted"
    assert "Traceback" not in rest


def test_our_own_bugs_are_one_line_too(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("edge_speech.commands.inspect.read_bundle", fail)
    assert cli.main(["inspect", "bundle"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", "bundle", "--debug"])


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "edge_speech.training.plot", None)
    assert cli.main(["plot", "somewhere"]) == 2
    assert 'pip install "edge-speech[train]"' in capsys.readouterr().err


def test_the_bundle_of_the_tests_has_what_the_spec_says(work: Path) -> None:
    assert read_bundle(work / "bundle").manifest.encoder == SPEC
