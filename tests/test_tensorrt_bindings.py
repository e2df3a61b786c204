"""What our code asks of TensorRT, held against the real Python bindings of each version, without TensorRT.

`make .venv/.bindings` fetches them. They load beside libraries that export what they look for and do nothing.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import fake_tensorrt
from fake_pycuda import FakeGpu

ROOT = Path(__file__).parent.parent
BINDINGS = ROOT / ".venv" / "bindings"
# The files that speak to TensorRT.
SOURCES = [ROOT / "edge_speech" / "engine_build.py", ROOT / "edge_speech" / "backends" / "tensorrt.py"]
# What each version does not have, which our code asks of it behind a look at the version.
ABSENT = {
    "8.6.1": {
        "IBuilderConfig.progress_monitor", "IProgressMonitor", "IProgressMonitor.__init__",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "ParserError.node_name", "ParserError.node_operator",
    },
    "10.3.0": set(),
    "10.16.1.11": set(),
    "11.4.0.106": {
        "BuilderFlag.FP16", "BuilderFlag.INT8", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    },
}  # fmt: skip
VERSIONS = [
    pytest.param(version, marks=[] if version in ("10.16.1.11", "11.4.0.106") else [pytest.mark.optional])
    for version in ABSENT
]
_LIBRARIES = ("libnvinfer.so", "libnvinfer_plugin.so", "libnvonnxparser.so", "libnvparsers.so")
_EXPORTS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins",
    # Of the parsers for UFF and Caffe, which 8.6 has.
    "_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)  # fmt: skip


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries that export everything and give null."""
    folder = tmp_path_factory.mktemp("stubs")
    source, built = folder / "stub.cc", folder / "stub.so"
    source.write_text("\n".join(f'extern "C" void* {name}() {{ return nullptr; }}' for name in _EXPORTS))
    subprocess.run(["g++", "-shared", "-fPIC", "-o", built, source], check=True)
    for name in _LIBRARIES:
        for major in (8, 10, 11):
            (folder / f"{name}.{major}").symlink_to(built)
    return folder


@cache
def contract(version: str, stubs: Path) -> dict[str, Any]:
    """What bindings_contract.py finds with the bindings of a version."""
    if not (BINDINGS / version).is_dir():
        pytest.skip(f"no bindings of TensorRT {version}; `make .venv/.bindings` fetches them")
    environment = os.environ | {"PYTHONPATH": str(BINDINGS / version), "LD_LIBRARY_PATH": str(stubs)}
    command = [sys.executable, str(Path(__file__).with_name("bindings_contract.py")), *map(str, SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_we_call_is_there_and_takes_what_we_give(version: str, stubs: Path) -> None:
    found = contract(version, stubs)
    assert found["version"] == version
    assert set(found["missing"]) == ABSENT[version]
    assert found["wrong"] == []
    assert len(found["used"]) > 60


@pytest.mark.parametrize("version", VERSIONS)
def test_the_contract_overlooks_nothing(version: str, stubs: Path) -> None:
    """No member of TensorRT is read from a variable that the contract does not know."""
    assert contract(version, stubs)["unknown"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_our_own_tensorrt_has_nothing_that_the_real_one_lacks(version: str, stubs: Path) -> None:
    surface = contract(version, stubs)["surface"]
    module = fake_tensorrt.module(version, FakeGpu())
    checked = 0
    for name, one in vars(module).items():
        if isinstance(one, type):
            members = getattr(one, "__members__", None) or vars(one)
            public = {member for member in members if not member.startswith("_")}
            assert public <= set(surface[name]), name
            checked += len(public)
    assert checked > 50


def test_no_other_file_speaks_to_tensorrt() -> None:
    """Elsewhere the module is asked for its version and passed on."""
    for path in sorted((ROOT / "edge_speech").rglob("*.py")):
        if path in SOURCES:
            continue
        reads = [
            n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)
        ]
        used = {n.attr for n in reads if isinstance(n.value, ast.Name) and n.value.id == "trt"}
        assert used <= {"__version__"}, path


def test_the_contract_finds_what_is_wrong(
    tmp_path: Path, stubs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "wrong.py"
    source.write_text(
        "class Monitor(trt.IProgressMonitor):\n"
        "    def phase_start(self, name, parent_phase, num_steps): ...\n"
        "builder.create_network(1, 2)\n"
        "config.set_timing_cache(cache, ignore=True)\n"
        "config.set_flags(1)\n"
        "thing.set_tensor_address('a', 1)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "SOURCES", [source])
    found = contract.__wrapped__("10.16.1.11", stubs)
    assert found["missing"] == ["IBuilderConfig.set_flags"]
    assert found["unknown"] == ["thing.set_tensor_address"]
    told = [one.partition("(")[0].partition("[")[0] for one in found["wrong"]]
    assert told == [
        "Builder.create_network",
        "IBuilderConfig.set_timing_cache",
        "IProgressMonitor.phase_start",
    ]
