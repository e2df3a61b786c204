"""Where a bundle comes from: versions, host, checkpoint."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge_speech.bundle import MANIFEST, sha256_of

_PACKAGES = ("edge-speech", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "jiwer")


def describe(model: Path, command: str) -> dict[str, Any]:
    """Tool versions, checkpoint hash, command, host and time."""
    return {
        "checkpoint": model.name,
        "checkpoint_sha256": sha256_of(model / MANIFEST if model.is_dir() else model),
        "command": command,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": host(),
        "python": platform.python_version(),
        "tools": describe_tools(),
    }


def describe_tools() -> dict[str, str | None]:
    """Versions of the packages that make a bundle; None for one that runs from a checkout uninstalled."""
    return {name: _version(name) for name in _PACKAGES}


def host() -> dict[str, str]:
    """System, architecture and processor of this machine."""
    return {"system": platform.system(), "arch": platform.machine(), "cpu": _cpu_name()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
