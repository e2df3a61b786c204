"""A Jetson of our own, bundles for it, and its command line: fixtures of the tests of TensorRT."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import fake_pycuda
import fake_tensorrt
from edge_speech import cli, cuda_graph, power_mode
from edge_speech.bundle_manifest import digest
from edge_speech_tools import pipeline, reference
from fake_pycuda import FakeGpu
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


def rewrite(bundle: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = digest(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
