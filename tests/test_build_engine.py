"""`edge-speech build-engine`, on a TensorRT and a GPU of our own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import fake_tensorrt
from board import VERSIONS, Device, both, failed, rewrite, run
from edge_speech import cli, power_mode
from edge_speech.archive import pack
from edge_speech.bundle import read_bundle, verify_bundle
from edge_speech.engine_build import build, make_monitor
from edge_speech.engine_cache import FOLDER
from edge_speech.engine_recipe import read_recipe, version_of
from edge_speech.errors import CheckFailed
from edge_speech.recognizer import Recognizer
from edge_speech.selection import Selection
from edge_speech.verification import verify
from edge_speech_tools.passes import PassResult, Source, load_passes
from streaming_double import streaming_double

pytest_plugins = ["board"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], PassResult]:
    """What the passes make of a small model, by pass and oldest TensorRT."""
    model, noise = streaming_double(), np.random.default_rng(0).normal(-8, 3, (200, 80)).astype(np.float32)
    folder, passes = tmp_path_factory.mktemp("artifacts"), load_passes()
    passes["onnx"].run(Source(model, model.spec, folder))

    @cache
    def result(name: str, minimum: str) -> PassResult:
        work = Path(shutil.copytree(folder, folder.with_name(f"{name}-{minimum}")))
        return passes[name].run(Source(model, model.spec, work, (noise,), {"tensorrt": minimum}))

    return result


def selection_of(bundle: Path) -> Selection:
    found = Recognizer.load(bundle).selection
    assert found is not None
    return found


@both
@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_built_compared_and_used(
    version: str, bundle: Path, device: Device, capsys: Any
) -> None:
    device.become(version)
    recipe = bundle / read_bundle(bundle).manifest.artifacts[0].path.replace(".onnx", ".engine.toml")
    if version_of(version) < version_of(read_recipe(recipe).tensorrt_minimum):
        assert "too old for this bundle, which asks for 10.3" in failed(capsys, 2, bundle)
        return
    code, document, _ = run(capsys, "build-engine", bundle)
    assert (code, document["built"], document["cuda_graph"]) == (0, True, True)
    assert document["agreement"] == 1.0 or document["precision"] == "int8-static"
    assert (document["gpu_name"], document["compute_capability"]) == ("Orin", "8.7")
    assert Recognizer.load(bundle, "tensorrt").artifact is not None
    assert {tried.backend for tried in selection_of(bundle).tried} == {"tensorrt", "onnxruntime"}
    verify_bundle(bundle)
    assert [check.agreement is not None for check in verify(bundle).artifacts] == [True, True]
    assert device.gpu.depth == 0


def test_the_engine_is_kept_and_built_anew_when_anything_differs(
    bundle: Path, device: Device, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(capsys, "build-engine", bundle)[1]
    assert not run(capsys, "build-engine", bundle)[1]["built"]
    assert run(capsys, "build-engine", bundle, "--force")[1]["built"]
    others = [
        device.become("10.7.0") and run(capsys, "build-engine", bundle)[1],
        device.become("10.3.0", name="Orin NX") and run(capsys, "build-engine", bundle)[1],
        device.become("10.3.0", capability=(11, 0)) and run(capsys, "build-engine", bundle)[1],
    ]
    device.become("10.3.0", name="Orin", capability=(8, 7))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["provenance"]["command"] = "another"
    rewrite(bundle, manifest)
    others.append(run(capsys, "build-engine", bundle)[1])
    assert all(one["built"] for one in others)
    assert len({one["engine"] for one in [first, *others]}) == 5
    monkeypatch.setattr(power_mode, "power_mode", lambda: ("15W", "2"))
    assert run(capsys, "build-engine", bundle)[1]["built"]


def test_a_timing_cache_is_kept_for_its_version(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    (cache,) = (bundle / FOLDER).glob("timing-10.3.0-8.7.cache")
    cache.write_bytes(b"9.9.9 of another version")
    assert run(capsys, "build-engine", bundle, "--force")[0] == 0
    assert cache.read_bytes().startswith(b"10.3.0")


def test_an_engine_that_is_not_equal_is_not_kept(
    bundle: Path, device: Device, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = device.trt.Runtime.deserialize_cuda_engine

    def halved(self: Any, content: bytes) -> Any:
        header, _, graph = content.partition(b"\n")
        model = onnx.load_from_string(graph)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16 and len(tensor.dims) == 2:
                array = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array[:, ::-1].copy(), tensor.name))
        return runtime(self, header + b"\n" + model.SerializeToString())

    monkeypatch.setattr(device.trt.Runtime, "deserialize_cuda_engine", halved)
    assert "built and not kept" in failed(capsys, 1, bundle)
    assert not list((bundle / FOLDER).glob("*.engine"))
    assert list((bundle / FOLDER).glob("timing*.cache")), "what was measured is worth keeping"
    assert Recognizer.load(bundle).artifact.backend == "onnxruntime"  # type: ignore[union-attr]


def test_ctrl_c_cancels_and_leaves_the_old_engine(
    bundle: Path, device: Device, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Path(run(capsys, "build-engine", bundle)[1]["engine"])
    before = engine.read_bytes()

    def interrupted(step: int, steps: int, doing: str) -> None:
        raise KeyboardInterrupt

    bar = lambda *_: nullcontext(interrupted)  # noqa: E731
    monkeypatch.setattr("edge_speech.commands.build_engine.phase_bar", bar)
    assert run(capsys, "build-engine", bundle, "--force")[0] == cli.EXIT_INTERRUPTED
    assert engine.read_bytes() == before
    assert not list((bundle / FOLDER).glob(".new*"))


def test_progress_is_of_the_outermost_phase(device: Device) -> None:
    told: list[tuple[int, int, str]] = []
    monitor = make_monitor(device.trt, lambda *what: told.append(what))
    assert fake_tensorrt._monitored(monitor)
    assert [step for step, _, _ in told] == sorted(step for step, _, _ in told)
    assert told[0] == (0, 2, "Building Engine")
    assert told[-1] == (2, 2, "Building Engine")


def test_parser_errors_are_listed(bundle: Path, device: Device, tmp_path: Path) -> None:
    artifact = read_bundle(bundle).manifest.artifacts[0]
    recipe = read_recipe((bundle / artifact.path).with_suffix(".engine.toml"))
    model = onnx.load(bundle / artifact.path)
    model.graph.node.append(onnx.helper.make_node("Det", ["a"], ["b"]))
    onnx.save(model, tmp_path / "bad.onnx")
    device.gpu.depth = 1
    with pytest.raises(
        CheckFailed, match=r"does not take bad.onnx: .*\(Det the_node, number 3\).* and 2 more"
    ) as error:
        build(device.trt, tmp_path / "bad.onnx", recipe, tmp_path / "timing", lambda *_: None)
    assert "\n" not in str(error.value)
    device.become("8.6.1")
    with pytest.raises(CheckFailed, match=r"\(node, number 3\)"):
        build(
            device.trt,
            tmp_path / "bad.onnx",
            replace(recipe, tensorrt_minimum="8.6"),
            tmp_path,
            lambda *_: None,
        )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("minimum", ["8.5", "10.3"])
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_int8"])
def test_how_each_version_is_told_the_precision(
    name: str, minimum: str, version: str, device: Device, artifacts: Callable[[str, str], PassResult]
) -> None:
    result = artifacts(name, minimum)
    recipe = replace(read_recipe(result.companions[0]), tensorrt_minimum="8.5")
    device.become(version).gpu.depth = 1
    parts = device.trt, result.path, recipe, result.path.with_name("timing"), lambda *_: None
    header = json.loads(build(*parts).partition(b"\n")[0])
    by_flags = not version.startswith("11") and (
        version == "8.6.1" or (name, minimum) == ("tensorrt_int8", "8.5")
    )
    assert header["typed"] is not by_flags
    assert header["flags"] == (["FP16", "INT8"][: 1 + (name == "tensorrt_int8")] if by_flags else [])


@both
def test_dla(bundle: Path, device: Device, capsys: Any) -> None:
    precision = read_bundle(bundle).manifest.artifacts[0].precision
    if precision != "fp16":
        assert "use --precision fp16" in failed(capsys, 2, bundle, "--dla-core", 0)
        return
    code, document, _ = run(capsys, "build-engine", bundle, "--dla-core", 1)
    assert (code, document["dla_core"], document["built"]) == (0, 1, True)
    header = json.loads(Path(document["engine"]).read_bytes().partition(b"\n")[0])
    assert header == {"version": "10.3.0", "gpu": "Orin", "typed": False, "flags": ["FP16", "GPU_FALLBACK"]}
    assert run(capsys, "build-engine", bundle)[1]["built"], "without the core it is another engine"
    device.become("10.3.0", num_dla_cores=0)
    assert "finds 0 DLA cores" in failed(capsys, 2, bundle, "--dla-core", 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no such bundle"),
        (["BUNDLE", "--power-mode", "15W"], r"runs in power mode MAXN \(0\), 15W is asked for"),
        (["BUNDLE", "--precision", "OTHER"], "no TensorRT artifact of this precision"),
        (["PACKED"], "give the folder it was packed from"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, bundle: Path, device: Device, capsys: Any
) -> None:
    precision = read_bundle(bundle).manifest.artifacts[0].precision
    given = {"BUNDLE": bundle, "PACKED": pack(bundle, bundle.with_name("b.esb"))}
    given["OTHER"] = {"fp16": "int8-static", "int8-static": "fp16"}[precision]  # type: ignore[assignment]
    assert re.search(said, failed(capsys, 2, *(given.get(word, word) for word in words)))


def test_the_power_mode_is_taken_by_name_and_number(bundle: Path, device: Device, capsys: Any) -> None:
    assert run(capsys, "build-engine", bundle, "--power-mode", "MAXN")[1]["power_mode"] == "MAXN"
    assert not run(capsys, "build-engine", bundle, "--power-mode", "0")[1]["built"]


def test_a_bundle_of_an_older_version(bundle: Path, device: Device, capsys: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["reports"] = [e for e in manifest["reports"] if not e["path"].endswith(".engine.toml")]
    rewrite(bundle, manifest)
    assert Recognizer.load(bundle).artifact is not None
    assert "an older edge-speech made it" in failed(capsys, 2, bundle)
