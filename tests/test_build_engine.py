"""`edge-speech build-engine` and the TensorRT backend, on a TensorRT and a GPU of our own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import fake_pycuda
import fake_tensorrt
from edge_speech import backends, cli, cuda_graph, power_mode
from edge_speech.archive import pack
from edge_speech.audio import read_audio
from edge_speech.backends import tensorrt
from edge_speech.bundle import read_bundle, sha256_of, verify_bundle
from edge_speech.bundle_manifest import digest
from edge_speech.encoder import step_buffers
from edge_speech.engine_build import build, make_monitor
from edge_speech.engine_cache import FOLDER, read_note
from edge_speech.engine_recipe import read_recipe, version_of
from edge_speech.errors import CheckFailed, EngineRefused, FellBack, InputError
from edge_speech.recognizer import Recognizer
from edge_speech.verification import verify
from edge_speech_tools import pipeline, reference
from edge_speech_tools.passes import PassResult, Source, load_passes
from fake_pycuda import FakeGpu
from streaming_double import streaming_double
from test_optimize import config_of, write_model

VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.4.0")


@dataclass
class Device:
    """What a test can change of the machine it runs on."""

    monkeypatch: pytest.MonkeyPatch
    gpu: FakeGpu
    trt: Any = None

    def become(self, version: str, num_dla_cores: int = 2, **gpu: Any) -> Device:
        for key, value in gpu.items():
            setattr(self.gpu, key, value)
        self.trt = fake_tensorrt.module(version, self.gpu, num_dla_cores)
        driver: Any = fake_pycuda.driver(self.gpu)
        package: Any = type(sys)("pycuda")
        package.__spec__, package.driver = driver.__spec__, driver
        for name, module in {"tensorrt": self.trt, "pycuda": package, "pycuda.driver": driver}.items():
            self.monkeypatch.setitem(sys.modules, name, module)
        self.monkeypatch.setattr(cuda_graph, "_library", lambda: fake_pycuda.GraphLibrary(self.gpu))
        return self


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """An Orin with JetPack 6.2."""
    monkeypatch.setattr(power_mode, "power_mode", lambda: ("MAXN", "0"))
    return Device(monkeypatch, FakeGpu()).become("10.3.0")


@pytest.fixture(scope="module")
def make(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Bundles for the Orin by precision of their TensorRT artifact, each made once."""
    folder = tmp_path_factory.mktemp("made")

    @cache
    def made(precision: str) -> Path:
        config = config_of(write_model(folder / "model.pt"), folder / precision, "jetson-orin")
        if precision == "int8-static":
            recordings = digits / "calibration.jsonl"
            config = replace(config, precision=precision, calibration_manifest=recordings)
        return pipeline.optimize(config).bundle

    with reference.single_thread():
        yield made


@pytest.fixture
def bundle(request: pytest.FixtureRequest, make: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a bundle: with fp16, unless a test asks for both."""
    return Path(shutil.copytree(make(getattr(request, "param", "fp16")), tmp_path / "bundle"))


both = pytest.mark.parametrize("bundle", ["fp16", "int8-static"], indirect=True)


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


def run(capsys: Any, *words: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, the document, and what was said on stderr."""
    code = cli.main([*map(str, words), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err


def failed(capsys: Any, code: int, *words: object) -> str:
    """The one line of a command that must fail."""
    got, document, said = run(capsys, "build-engine", *words)
    assert (got, document) == (code, {})
    assert said.count("\n") == 1
    return said


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
    recognizer = Recognizer.load(bundle)
    assert recognizer.artifact is not None
    assert recognizer.artifact.backend == "tensorrt"
    verify_bundle(bundle)
    assert [check.agreement is not None for check in verify(bundle).artifacts] == [True, True]
    assert device.gpu.depth == 0


@both
@pytest.mark.parametrize("kind", [(True, False), (False, False), (False, True)])
def test_a_stream_gives_what_the_same_graph_gives_on_the_cpu(
    kind: tuple[bool, bool], bundle: Path, device: Device, digits: Path, capsys: Any
) -> None:
    integrated, refuses_capture = kind
    device.become("10.3.0", integrated=integrated, refuses_capture=refuses_capture)
    assert run(capsys, "build-engine", bundle)[1]["cuda_graph"] is not refuses_capture
    opened = read_bundle(bundle)
    artifact = opened.manifest.artifacts[0]
    on_cpu = backends.load_encoder("onnxruntime", bundle / artifact.path, opened.manifest.encoder)
    samples, rate = read_audio(sorted(digits.rglob("*.flac"))[0])
    recognizers = (
        Recognizer.from_artifact(opened, artifact),
        Recognizer.with_encoder(opened, artifact, on_cpu),
    )
    rows = []
    device.gpu.copies = device.gpu.launches = 0
    for recognizer in recognizers:
        stream = recognizer.create_stream(keep_log_probs=True, beam_size=1)
        for _ in range(2):  # the state of the first time must be gone
            stream.accept_waveform(samples, rate)
            stream.input_finished()
            rows.append(stream.log_probs())
            steps = stream.steps
            stream.reset()
    assert rows[0].tobytes() == rows[1].tobytes() == rows[2].tobytes()
    assert steps > 3
    assert device.gpu.launches == (0 if refuses_capture else 2 * steps)
    assert (device.gpu.copies == 0) is integrated


def test_streams_of_one_engine_do_not_share_state(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    opened = read_bundle(bundle)
    encoder = backends.load_artifact(opened, opened.manifest.artifacts[0])
    features = np.random.default_rng(0).normal(size=(4, *step_buffers(encoder)[0].shape)).astype(np.float32)

    def rows(interleaved: bool) -> list[bytes]:
        buffers = [step_buffers(encoder) for _ in range(2)]
        streams = [encoder.open(*pair) for pair in buffers]
        order = [0, 1] * 4 if interleaved else [0] * 4 + [1] * 4
        out: list[list[bytes]] = [[], []]
        for which in order:
            buffers[which][0][:] = features[len(out[which])] * (1 + which)
            streams[which].step()
            out[which].append(buffers[which][1].tobytes())
        return out[0] + out[1]

    assert rows(interleaved=True) == rows(interleaved=False)


def test_buffers_of_someone_else_are_copied(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    opened = read_bundle(bundle)
    encoder = backends.load_artifact(opened, opened.manifest.artifacts[0])
    locked, plain = step_buffers(encoder), tuple(np.zeros_like(array) for array in step_buffers(encoder))
    for features, log_probs in (locked, plain):
        features[:] = np.linspace(-10, 5, features.size).reshape(features.shape)
        encoder.open(features, log_probs).step()
    assert locked[1].tobytes() == plain[1].tobytes()
    assert np.isfinite(plain[1]).all()


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


def rewrite(bundle: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = digest(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_timing_cache_is_kept_for_its_version(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    (cache,) = (bundle / FOLDER).glob("timing-10.3.0-8.7.cache")
    cache.write_bytes(b"9.9.9 of another version")
    assert run(capsys, "build-engine", bundle, "--force")[0] == 0
    assert cache.read_bytes().startswith(b"10.3.0")


def test_another_board_is_passed_over_with_one_line(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    device.become("10.7.0", name="Thor")
    with pytest.warns(
        FellBack, match=r"built for TensorRT 10.3.0 on Orin .*this is TensorRT 10.7.0 on Thor"
    ) as told:
        recognizer = Recognizer.load(bundle)
    assert "edge-speech build-engine" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    assert recognizer.artifact is not None
    assert recognizer.artifact.backend == "onnxruntime"
    with pytest.raises(EngineRefused, match="Thor"):
        Recognizer.load(bundle, backend="tensorrt")


def test_the_command_line_says_so_in_one_line(
    bundle: Path, device: Device, capsys: Any, digits: Path
) -> None:
    run(capsys, "build-engine", bundle)
    device.become("10.7.0")
    audio = sorted(digits.rglob("*.flac"))[0]
    code, _, said = run(capsys, "transcribe", bundle, audio)
    assert code == 0
    assert said.startswith("edge-speech: ")
    assert said.count("\n") == 1


def damage(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-9] + b"x" * 9)


def remove_note(engine: Path) -> None:
    engine.with_suffix(".json").unlink()


def odd_note(engine: Path) -> None:
    engine.with_suffix(".json").write_text('{"key": 3}')


@pytest.mark.parametrize("change", [damage, remove_note, odd_note])
def test_a_damaged_engine_is_refused_and_built_again(
    change: Any, bundle: Path, device: Device, capsys: Any
) -> None:
    engine = Path(run(capsys, "build-engine", bundle)[1]["engine"])
    change(engine)
    with pytest.warns(FellBack, match="build the engine again"):
        assert Recognizer.load(bundle).artifact is not None
    assert run(capsys, "build-engine", bundle)[1]["built"]
    assert read_note(engine).key.gpu_name == "Orin"


def test_an_engine_that_tensorrt_refuses(bundle: Path, device: Device, capsys: Any) -> None:
    """Its note says that it is for here, and yet it is not."""
    engine = Path(run(capsys, "build-engine", bundle)[1]["engine"])
    content = engine.read_bytes().replace(b'"Orin"', b'"Nano"')
    engine.write_bytes(content)
    note = json.loads(engine.with_suffix(".json").read_text())
    note["sha256"] = sha256_of(engine)
    engine.with_suffix(".json").write_text(json.dumps(note))
    with pytest.raises(EngineRefused, match=r"refuses it .*not compatible with this version"):
        Recognizer.load(bundle, backend="tensorrt")


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


def test_a_machine_without_tensorrt(bundle: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "comes with JetPack" in failed(capsys, 2, bundle)
    assert Recognizer.load(bundle).artifact.backend == "onnxruntime"  # type: ignore[union-attr]
    with pytest.raises(InputError, match="build-engine BUNDLE"):
        Recognizer.load(bundle, backend="tensorrt")


def test_a_bundle_of_an_older_version(bundle: Path, device: Device, capsys: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["reports"] = [e for e in manifest["reports"] if not e["path"].endswith(".engine.toml")]
    rewrite(bundle, manifest)
    assert Recognizer.load(bundle).artifact is not None
    assert "an older edge-speech made it" in failed(capsys, 2, bundle)


def test_a_host_tensor_cannot_be_state(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    device.trt.ICudaEngine.get_tensor_location = lambda self, name: device.trt.TensorLocation.HOST
    with pytest.raises(EngineRefused, match="a shape on the CPU"):
        Recognizer.load(bundle, backend="tensorrt")
    assert tensorrt.REQUIRES == "tensorrt pycuda"
