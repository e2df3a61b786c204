"""CUDA graphs through the driver's own functions, on a driver library of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each function notes its call; the one named in FAILS gives CUDA error 801, not supported.
LIBRARY = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>
static int note(const char* name, void* a, long b) {
  std::printf("%s %ld %ld\n", name, (long)a, b);
  std::fflush(stdout);
  const char* fails = std::getenv("FAILS");
  return fails && !std::strcmp(fails, name) ? 801 : 0;
}
extern "C" {
int cuStreamBeginCapture_v2(void* stream, int mode) { return note("begin", stream, mode); }
int cuStreamEndCapture(void* stream, void** graph) { *graph = (void*)7; return note("end", stream, 0); }
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  *executable = (void*)8; return note("instantiate", graph, (long)flags);
}
int cuGraphLaunch(void* executable, void* stream) { return note("launch", executable, (long)stream); }
int cuGraphExecDestroy(void* executable) { return note("destroy_exec", executable, 0); }
int cuGraphDestroy(void* graph) { return note("destroy", graph, 0); }
}
"""
SCRIPT = """
from edge_speech.cuda_graph import CaptureFailed, capture
def work():
    print("work", flush=True)
    if {broken}: raise ValueError("broken")
try:
    graph = capture(1 << 40, work)
    graph.launch(1 << 40)
    graph.launch(1 << 40)
    del graph
except (CaptureFailed, ValueError) as error:
    print(type(error).__name__, error)
"""
STREAM = 1 << 40
BEGIN, END = [f"begin {STREAM} 1"], [f"end {STREAM} 0"]
CAPTURED = [*BEGIN, "work", *END]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "cuda.cc").write_text(LIBRARY)
    command = ["g++", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.cc"]
    subprocess.run(command, check=True)
    return folder


def calls(library: Path, fails: str = "", broken: bool = False) -> list[str]:
    environment = os.environ | {"LD_LIBRARY_PATH": str(library), "FAILS": fails}
    command = [sys.executable, "-c", SCRIPT.format(broken=broken)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
    return done.stdout.splitlines()


def test_a_graph_is_captured_once_and_launched(library: Path) -> None:
    launch = f"launch 8 {STREAM}"
    assert calls(library) == [*CAPTURED, "instantiate 7 0", "destroy 7 0", launch, launch, "destroy_exec 8 0"]


@pytest.mark.parametrize(
    ("fails", "after"),
    [
        ("begin", [*BEGIN, "CaptureFailed cuStreamBeginCapture_v2 gave CUDA error 801"]),
        ("end", [*CAPTURED, "CaptureFailed cuStreamEndCapture gave CUDA error 801"]),
        (
            "instantiate",
            [
                *CAPTURED,
                "instantiate 7 0",
                "destroy 7 0",
                "CaptureFailed cuGraphInstantiateWithFlags gave CUDA error 801",
            ],
        ),
    ],
)
def test_what_fails_is_named_and_cleaned_up(fails: str, after: list[str], library: Path) -> None:
    assert calls(library, fails) == after


def test_work_that_fails_ends_the_capture(library: Path) -> None:
    assert calls(library, broken=True) == [*CAPTURED, "destroy 7 0", "ValueError broken"]


def test_a_machine_without_the_driver(tmp_path: Path) -> None:
    assert calls(tmp_path)[0].startswith("CaptureFailed libcuda.so.1")
