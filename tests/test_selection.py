"""With "auto" the fastest artifact that is right runs, and stays the one that runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_speech import selection
from edge_speech.bundle import Manifest, describe_artifact, new_bundle, write_manifest, write_tokens
from edge_speech.cli import main
from edge_speech.errors import FellBack, InputError
from edge_speech.recognizer import Recognizer
from tiny import FRONTEND, SPEC, TOKENS, edit, write_golden, write_onnx, write_wav

Maker = Callable[[Path], None]


def fast(path: Path) -> None:
    write_onnx(path)


def slow(path: Path) -> None:
    """The same function after two thousand nodes whose sum counts for nothing."""
    write_onnx(path)
    model = onnx.load(path)
    graph = model.graph
    names = ["context", *(f"wave{i}" for i in range(2000))]
    waves = [helper.make_node("Sin", [a], [b]) for a, b in pairwise(names)]
    nothing = helper.make_node("Mul", [names[-1], "nothing"], ["silence"])
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    at = next(i for i, node in enumerate(graph.node) if node.op_type == "Add")
    graph.node[at].input[1] = "heard"
    heard = helper.make_node("Add", ["context", "silence"], ["heard"])
    nodes = [*graph.node[:at], *waves, nothing, heard, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def wrong(path: Path) -> None:
    write_onnx(path)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), "weight"))
    onnx.save(model, path)


def garbage(path: Path) -> None:
    path.write_bytes(b"not a model")


def write(output: Path, *makers: Maker) -> Path:
    """A bundle whose artifacts come in this order."""
    with new_bundle(output, force=True) as folder:
        artifacts = []
        for number, make in enumerate(makers):
            make(folder / f"{number}-{make.__name__}.onnx")
            artifacts.append(
                describe_artifact(
                    folder, f"{number}-{make.__name__}.onnx", backend="onnxruntime", precision="fp32"
                )
            )
        tokens, golden = write_tokens(folder, TOKENS), write_golden(folder)
        decoder = {"type": "greedy", "blank_id": 0}
        write_manifest(
            folder, Manifest("linux-x86_64", FRONTEND, SPEC, decoder, tokens, tuple(artifacts), golden)
        )
    return output


def running(recognizer: Recognizer) -> str:
    assert recognizer.artifact is not None
    return recognizer.artifact.path


def never(*_: object) -> None:
    raise AssertionError("measured again")


def test_the_fastest_runs_and_is_not_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write(tmp_path / "b", slow, fast)
    first = Recognizer.load(bundle)
    assert running(first) == "1-fast.onnx"
    assert first.selection is not None
    assert first.selection.is_new
    times = {one.path: one.chunk_ms for one in first.selection.tried}
    assert times["0-slow.onnx"] > times["1-fast.onnx"] > 0
    assert [p.name for p in tmp_path.iterdir() if p != bundle] == [".b.backend.json"]
    monkeypatch.setattr(selection, "_times", never)
    second = Recognizer.load(bundle)
    assert running(second) == "1-fast.onnx"
    assert second.selection is not None
    assert not second.selection.is_new


def test_of_equals_the_makers_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_times", lambda found, _: {p: 1 - 0.05 * i for i, p in enumerate(found)})
    assert running(Recognizer.load(write(tmp_path / "b", fast, fast))) == "0-fast.onnx"


def test_what_is_wrong_or_does_not_load_is_passed_over(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b", wrong, garbage, fast)
    with pytest.warns(FellBack) as said:
        assert running(Recognizer.load(bundle)) == "2-fast.onnx"
    lines = [str(one.message) for one in said]
    assert len(lines) == 2
    assert "does not give the golden log_probs" in lines[0]
    assert "cannot load it" in lines[1]
    assert all(line.endswith("onnxruntime/fp32 runs instead") and "\n" not in line for line in lines)
    with pytest.warns(FellBack) as again:
        assert running(Recognizer.load(bundle)) == "2-fast.onnx"
    assert [str(one.message) for one in again] == lines


def test_a_ptl_with_missing_operators_is_passed_over(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lite import save_lite

    def unknown(path: Path) -> None:
        save_lite(path.with_suffix(".tmp"))
        with zipfile.ZipFile(path.with_suffix(".tmp")) as made, zipfile.ZipFile(path, "w") as changed:
            for entry in made.infolist():
                changed.writestr(entry, made.read(entry).replace(b"aten::log_softmax", b"aten::log_softmaz"))
        path.with_suffix(".tmp").unlink()

    bundle = write(tmp_path / "b", unknown, fast)
    edit(bundle, lambda data: data["artifacts"][0].update(backend="torchscript_mobile"))
    with pytest.warns(FellBack, match=r"operators that the PyTorch here does not have \(aten::log_softmaz"):
        assert running(Recognizer.load(bundle)) == "1-fast.onnx"


def test_nothing_that_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot load it"):
        Recognizer.load(write(tmp_path / "b", garbage, garbage))


@pytest.mark.parametrize("note", ["", "[]", '{"path": 3}', "{" * 100_000])
def test_a_note_that_cannot_be_read_is_made_anew(tmp_path: Path, note: str) -> None:
    bundle = write(tmp_path / "b", slow, fast)
    (tmp_path / ".b.backend.json").write_text(note)
    recognizer = Recognizer.load(bundle)
    assert recognizer.selection is not None
    assert recognizer.selection.is_new
    assert json.loads((tmp_path / ".b.backend.json").read_text())["path"] == running(recognizer)


def test_a_full_disk_leaves_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    bundle = write(tmp_path / "b", slow, fast)
    monkeypatch.setattr(Path, "write_text", full)
    assert running(Recognizer.load(bundle)) == "1-fast.onnx"
    assert list(tmp_path.iterdir()) == [bundle]


def test_from_inside_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "b", slow, fast))
    assert running(Recognizer.load(".")) == "1-fast.onnx"
    assert (tmp_path / ".b.backend.json").exists()


@pytest.mark.parametrize("changed", ["bundle", "threads"])
def test_another_bundle_or_more_threads_are_measured_anew(tmp_path: Path, changed: str) -> None:
    bundle = write(tmp_path / "b", slow, fast)
    Recognizer.load(bundle)
    if changed == "bundle":
        write(tmp_path / "b", fast, slow)
    again = Recognizer.load(bundle, num_threads=2 if changed == "threads" else 1)
    assert again.selection is not None
    assert again.selection.is_new


def test_where_nothing_can_be_noted_the_makers_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection.os, "access", lambda *_: False)
    monkeypatch.setattr(selection, "_times", never)
    recognizer = Recognizer.load(write(tmp_path / "b", slow, fast))
    assert running(recognizer) == "0-slow.onnx"
    assert recognizer.selection is None
    with pytest.warns(FellBack, match="golden"):
        assert running(Recognizer.load(write(tmp_path / "c", wrong, fast))) == "1-fast.onnx"


def test_the_command_line_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write(tmp_path / "b", slow, fast)
    write_wav(tmp_path / "a.wav", np.zeros(16000, np.int16))
    for expected in (1, 0):
        assert main(["transcribe", str(bundle), str(tmp_path / "a.wav")]) == 0
        assert capsys.readouterr().err.count("onnxruntime/fp32 runs, with ") == expected
