"""What `edge-speech bench --json` measured on the device, to be read where bundles are made."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.fields import Table

_LARGEST = 1 << 24
_EXPECTED = "give the output of `edge-speech bench BUNDLE --json`"


@dataclass(frozen=True)
class DeviceResult:
    """One artifact on the device; times of a chunk in milliseconds, `bytes` of the file that was loaded."""

    latency_ms: float
    latency_p99_ms: float
    rtf: float
    peak_rss_mib: float
    bytes: int


def read_device_bench(
    paths: Sequence[Path], chunk_ms: float, known: Collection[str]
) -> dict[str, DeviceResult]:
    """By `backend/precision`. Raises InputError: no such file, another model's, or none about `known`."""
    found: dict[str, DeviceResult] = {}
    for path in paths:
        for result in Table.of(_read(path), str(path)).tables("results", 1024):
            key = f"{result.text('backend')}/{result.text('precision')}"
            if key in found:
                raise InputError(f"{path}: {key} was given before; give each artifact's bench once")
            found[key] = _result(result, chunk_ms)
    if paths and not set(found) & set(known):
        raise InputError(
            f"{paths[0]}: has {', '.join(found) or 'no results'}, none of the planned {', '.join(known)}; "
            "run `edge-speech bench BUNDLE --json` on the device with such a bundle"
        )
    return found


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(
                f"{path}: larger than {_LARGEST >> 20} MiB, no output of `edge-speech bench --json`"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; {_EXPECTED}") from None


def _result(result: Table, chunk_ms: float) -> DeviceResult:
    if abs(result.number("chunk_ms", 0.1, 1e6) - chunk_ms) > 0.01:
        raise result.wrong("chunk_ms", f"{chunk_ms:g}, the model's; it is a bench of another model")
    latency = result.table("chunk_latency_ms")
    return DeviceResult(
        latency_ms=latency.number("p50", 0, 1e7),
        latency_p99_ms=latency.number("p99", 0, 1e7),
        rtf=result.number("rtf", 0, 1e6),
        peak_rss_mib=result.number("peak_rss_mib", 0, 1 << 30),
        bytes=result.integer("artifact_bytes", 0, 1 << 50),
    )
