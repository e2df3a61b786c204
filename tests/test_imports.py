"""Who may import whom: in Python by AST and by what is loaded, in C++ by #include lines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "edge_speech"
DEVICE_FILES = sorted(p for p in PACKAGE.rglob("*.py") if "training" not in p.relative_to(PACKAGE).parts)

# Layer → the layers it may include, from the bottom up; siblings never include each other.
LAYERS = {
    "base": {"base"},
    "features": {"base", "features"},
    "decoder": {"base", "decoder"},
    "backends": {"base", "backends"},
    "recognizer": {"base", "features", "decoder", "backends", "recognizer"},
    "bindings": {"base", "features", "decoder", "backends", "recognizer", "bindings"},
}


def loaded_by(code: str) -> set[str]:
    code = f"import sys; {code}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_loads_no_engine_and_no_torch() -> None:
    assert not loaded_by("import edge_speech") & {"torch", "onnxruntime", "numpy", "edge_speech_tools"}
    everything = "import edge_speech as es; [getattr(es, name) for name in es.__all__]"
    heavy = {"torch", "onnxruntime", "soundfile", "jiwer", "tqdm", "edge_speech_tools"}
    assert not loaded_by(everything) & heavy
    assert not loaded_by("import edge_speech.cli; edge_speech.cli.build_parser()") & heavy


def test_all_public_names_exist() -> None:
    import edge_speech

    assert set(edge_speech.__all__) == set(edge_speech._HOMES)
    assert set(edge_speech.__all__) <= set(dir(edge_speech))
    for name in edge_speech.__all__:
        assert getattr(edge_speech, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edge_speech.nothing


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top level) of every import statement."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        found += [(name, id(node) in top) for name in names]
    return found


@pytest.mark.parametrize("path", DEVICE_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_device_files_import_only_what_a_device_has(path: Path) -> None:
    for module, top_level in imports(path):
        root = module.split(".")[0]
        assert root != "edge_speech_tools", f"{path} imports the host's tools"
        assert not module.startswith("edge_speech.training"), f"{path} imports training"
        if root == "torch":
            assert path.parent.name == "backends", f"{path} imports torch"
        if top_level:
            assert root not in {"torch", "onnxruntime", "soundfile", "jiwer", "tqdm", "sounddevice"}, path


def test_few_commands_reach_the_host_side() -> None:
    """By name, lazily: train, plot, and eval under torchrun into edge_speech.training, optimize into
    edge_speech_tools."""
    reaching = {}
    for path in DEVICE_FILES:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'"(edge_speech\.training[\w.]*|edge_speech_tools[\w.]*)"', text):
            reaching.setdefault(path.stem, set()).add(name)
    assert reaching == {
        "train": {"edge_speech.training.train"},
        "plot": {"edge_speech.training.plot"},
        "eval": {"edge_speech.training.distributed"},
        "optimize": {"edge_speech_tools.pipeline"},
        "prune": {"edge_speech_tools.prune.command"},
        "import_model": {"edge_speech_tools.importing.command"},
    }


def test_training_does_not_import_the_tools() -> None:
    for path in sorted((PACKAGE / "training").rglob("*.py")):
        assert not [m for m, _ in imports(path) if m.startswith("edge_speech_tools")], path


def test_cpp_layers_have_no_back_edge() -> None:
    sources = [p for ext in ("*.h", "*.cc") for p in (ROOT / "cpp_runtime").rglob(ext)]
    checked = 0
    for path in sources:
        layer = path.relative_to(ROOT / "cpp_runtime").parts[0]
        if layer not in LAYERS:
            continue
        for included in re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.M):
            assert included.split("/")[0] in LAYERS[layer], f"{path.name} includes {included}"
            checked += 1
    assert checked >= 10


def test_nothing_in_the_core_throws_or_exits() -> None:
    for layer in set(LAYERS) - {"bindings"}:
        for path in (ROOT / "cpp_runtime" / layer).glob("*.*"):
            code = re.sub(r"//.*|\"(?:[^\"\\]|\\.)*\"", "", path.read_text(encoding="utf-8"))
            assert not re.search(r"\bthrow\b|\babort\(|\bexit\(|\bassert\(", code), path
