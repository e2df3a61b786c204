"""What our code uses of TensorRT, held against one version's real bindings; run in a process of its own.

`python bindings_contract.py SOURCE…` prints JSON: `used`, every member; `missing`, of those, what this
version does not have; `wrong`, calls that its signatures do not take; `unknown`, names of TensorRT's members
read from a variable that NAMES does not have; `surface`, the members of each class. Needs `tensorrt_bindings`
on the path, and libraries for it to load (test_tensorrt_bindings.py makes stubs).
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

# How our sources call what TensorRT gives them.
NAMES = {
    "trt": "", "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig",
    "parser": "OnnxParser", "error": "ParserError", "cache": "ITimingCache", "runtime": "Runtime",
    "engine": "ICudaEngine", "context": "IExecutionContext", "tensor": "ITensor", "logger": "ILogger",
    "flags": "BuilderFlag", "creation": "NetworkDefinitionCreationFlag", "profile": "IOptimizationProfile",
}  # fmt: skip
# Ours: of Profile, TensorSpec, Note, Artifact and of exceptions, which have variables of the same names.
OURS = {
    "name", "min", "opt", "max", "shape", "dtype", "itemsize", "errors", "cancelled", "precision", "allocate",
    "append",
}  # fmt: skip


class Contract:
    """Walks our sources with the module `trt` at hand."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.members: set[str] = set()
        for one in vars(trt).values():
            if isinstance(one, type) and one.__module__.startswith("tensorrt"):
                self.members |= {name for name in dir(one) if not name.startswith("_")}
        self.used: set[str] = set()
        self.missing: set[str] = set()
        self.wrong: set[str] = set()
        self.unknown: set[str] = set()

    def read(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                self._member(node, calls.get(id(node)))
            if isinstance(node, ast.ClassDef):
                self._overridden(node)

    def _member(self, node: ast.Attribute, call: ast.Call | None) -> None:
        owner = self._type(node.value)
        if owner is None:
            if node.attr in self.members - OURS and self._type(node) is None:
                self.unknown.add(ast.unparse(node))
            return
        there, shown = self._class(owner), f"{owner}.{node.attr}".lstrip(".")
        has = there is not None and hasattr(there, node.attr)
        if node.attr in OURS and not has:
            return
        self.used.add(shown)
        if not has:
            self.missing.add(shown)
        elif call is not None:
            self._call(shown, getattr(self._class(owner), node.attr), call, bound=bool(owner))

    def _call(self, shown: str, member: Any, call: ast.Call, bound: bool) -> None:
        given = len(call.args), sorted(keyword.arg or "" for keyword in call.keywords)
        found = _signatures(member.__init__ if isinstance(member, type) else member)
        bound = bound or isinstance(member, type)
        if shown.endswith(".__init__"):  # self is given
            bound = False
        if not any(_takes(parameters[bound:], *given) for parameters in found):
            self.wrong.add(f"{shown}{given} of {found}")

    def _overridden(self, node: ast.ClassDef) -> None:
        """Methods by which we answer TensorRT take what it gives."""
        for base in filter(None, map(self._type, node.bases)):
            for method in [one for one in node.body if isinstance(one, ast.FunctionDef)]:
                if method.name.startswith("_") or not hasattr(self.trt, base):
                    continue
                self.used.add(f"{base}.{method.name}")
                shown, ours = f"{base}.{method.name}", [one.arg for one in method.args.args]
                theirs = _signatures(getattr(self._class(base), method.name, None))
                if not any([one.split("=")[0] for one in each] == ours for each in theirs):
                    self.wrong.add(f"{shown}{ours} overrides {theirs}")

    def _class(self, owner: str) -> Any:
        value = self.trt
        for part in owner.split(".") if owner else []:
            value = getattr(value, part, None)
        return value

    def _type(self, node: ast.expr) -> str | None:
        """The class that an expression is of, "" for the module; None where it is none of TensorRT's."""
        if isinstance(node, ast.Name) and node.id in NAMES:
            return NAMES[node.id]
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            return NAMES[node.attr]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt":
            return node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = self._type(node.func.value)
            member = None if owner is None else getattr(self._class(owner), node.func.attr, None)
            found = re.search(r"-> tensorrt\w*(?:\.tensorrt)?\.(\w+)", str(getattr(member, "__doc__", "")))
            return found.group(1) if found else None
        return None


def _signatures(member: Any) -> list[list[str]]:
    """Parameters of every overload, from the text that pybind11 writes; `self` is the first of a method."""
    text = str(getattr(member, "__doc__", "") or "")
    name = getattr(member, "__name__", "")
    found = re.findall(rf"^\s*(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", text, re.M)
    each = [[_parameter(one) for one in _split(found_one)] for found_one in found if "*args" not in found_one]
    return each


def _parameter(text: str) -> str:
    name, _, rest = text.partition(":")
    return name.strip() + ("=" if "=" in rest else "")


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _takes(parameters: list[str], positional: int, keywords: list[str]) -> bool:
    names = [one.rstrip("=") for one in parameters]
    rest = parameters[positional:]
    enough = all(one.endswith("=") or one in keywords for one in rest)
    return positional <= len(parameters) and enough and set(keywords) <= set(names[positional:])


def main() -> None:
    import tensorrt_bindings

    contract = Contract(tensorrt_bindings)
    for path in sys.argv[1:]:
        contract.read(Path(path))
    found = {key: sorted(getattr(contract, key)) for key in ("used", "missing", "wrong", "unknown")}
    surface = {
        name: sorted(set(dir(one))) for name, one in vars(tensorrt_bindings).items() if isinstance(one, type)
    }
    version = tensorrt_bindings.__version__
    print(json.dumps({**found, "version": version, "surface": surface}))


if __name__ == "__main__":
    main()
