"""report.json: what was planned, made, measured and decided. docs/bundle_format.md lists its keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edge_speech.bundle_manifest import GREEDY
from edge_speech.encoder import StreamingSpec
from edge_speech.quality import difference_ci95, wer_ci95
from edge_speech.target import Target
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools import onnx_model, prediction, provenance
from edge_speech_tools.choice import Choice
from edge_speech_tools.device_bench import DeviceResult
from edge_speech_tools.drift import summary
from edge_speech_tools.evaluation import PYTORCH, Measured, Quality
from edge_speech_tools.linter import Finding
from edge_speech_tools.passes import PassResult
from edge_speech_tools.plan import OptimizeConfig, Plan
from edge_speech_tools.report_html import as_html
from edge_speech_tools.search.result import Searched

FILES = ("report.json", "report.html")


@dataclass(frozen=True)
class Inputs:
    """Where a bundle comes from. `decoder` is the report's; `evaluation` and `golden` name recordings;
    `latency_is_targets` says whether the host has the target's instruction set."""

    config: OptimizeConfig
    target: Target
    plan: Plan
    loaded: LoadedModel
    spec: StreamingSpec
    decoder: dict[str, Any]
    evaluation: str | None
    golden: str
    latency_is_targets: bool
    chunk_ms: float
    device_bench: Mapping[str, DeviceResult]
    findings: Sequence[Finding] = ()
    searched: Searched | None = None
    pruning: dict[str, Any] | None = None


def content(inputs: Inputs, measured: Measured, choice: Choice) -> dict[str, Any]:
    """The document."""
    return {
        "model": _model(inputs),
        "target": inputs.target.as_json(),
        "plan": inputs.plan.as_json(),
        "findings": [finding.as_json() for finding in inputs.findings],
        "decoder": inputs.decoder,
        "artifacts": [_artifact(r, measured, choice) for r in measured.results],
        "quality": _quality(inputs, measured),
        "performance": _performance(inputs, measured),
        **({"prediction": _prediction(inputs, measured)} if _is_counted(inputs) else {}),
        "drift": _drift(measured),
        **({"pruning": inputs.pruning} if inputs.pruning else {}),
        **({"sensitivity": list(measured.sensitivity)} if measured.sensitivity else {}),
        **({"search": inputs.searched.report} if inputs.searched else {}),
        "decision": list(choice.reasons),
        "provenance": {
            **provenance.describe(inputs.config.model, inputs.config.command),
            "compared_on": measured.compared,
            "golden": inputs.golden,
            **({"search": inputs.searched.chosen} if inputs.searched else {}),
        },
    }


def write(folder: Path, document: dict[str, Any]) -> None:
    """Write report.json and report.html into `folder`."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / FILES[0]).write_text(text, encoding="utf-8")
    (folder / FILES[1]).write_text(as_html(document), encoding="utf-8")


def status(result: PassResult, measured: Measured) -> str:
    """`planned` stays planned; what was built is `verified` once its parity was measured, or once its own
    program gave every text."""
    texts = measured.texts.get(result.key)
    proven = result.key in measured.parity or (texts is not None and texts.holds)
    return "verified" if result.status == "built" and proven else result.status


def manifest_quality(document: dict[str, Any], kept: Sequence[PassResult]) -> dict[str, Any] | None:
    """The manifest's `quality`: the figures of the best artifact of the bundle."""
    quality = document["quality"]
    if quality is None:
        return None
    best = _entry_of(quality["artifacts"], kept[0])
    return {
        "set": quality["set"],
        "utterances": quality["utterances"],
        "words": quality["words"],
        "wer": best["wer"],
        "wer_ci95": best["wer_ci95"],
        "wer_fp32": quality["wer_pytorch"],
        **({"wer_greedy": best["wer_greedy"]} if "wer_greedy" in best else {}),
    }


def manifest_performance(document: dict[str, Any], kept: Sequence[PassResult]) -> dict[str, Any] | None:
    """The manifest's `performance`: bench results of the bundle's artifacts, and where they were measured."""
    keys = {(r.backend, r.precision) for r in kept}
    measured = document["performance"]
    results = [r for r in measured["results"] if (r["backend"], r["precision"]) in keys]
    return {**measured, "results": results} if results else None


def _entry_of(entries: list[dict[str, Any]], result: PassResult) -> dict[str, Any]:
    return next(e for e in entries if (e["backend"], e["precision"]) == (result.backend, result.precision))


def _parameters(model: torch.nn.Module) -> int:
    if isinstance(model, onnx_model.OnnxModel):
        return model.num_weights
    return sum(p.numel() for p in model.parameters())


def _model(inputs: Inputs) -> dict[str, Any]:
    loaded = inputs.loaded
    return {
        "path": inputs.config.model.name,
        "architecture": loaded.architecture,
        "config": loaded.config,
        "parameters": _parameters(loaded.model),
        "tokens": len(loaded.tokens),
        "encoder": asdict(inputs.spec),
        "frontend": loaded.frontend,
        "metrics": loaded.metrics,
    }


def _artifact(result: PassResult, measured: Measured, choice: Choice) -> dict[str, Any]:
    parity = measured.parity.get(result.key)
    return {
        "path": result.path.name,
        "bytes": result.path.stat().st_size,
        "backend": result.backend,
        "precision": result.precision,
        "status": status(result, measured),
        "command": result.command,
        "checked_with": result.check_backend,
        "kept": result.key in choice.kept,
        "parity": asdict(parity) if parity else None,
        **({"texts": asdict(measured.texts[result.key])} if result.key in measured.texts else {}),
    }


def _quality(inputs: Inputs, measured: Measured) -> dict[str, Any] | None:
    if not measured.quality:
        return None
    reference = measured.quality[PYTORCH].score
    searched = inputs.decoder["type"] != GREEDY
    return {
        "set": inputs.evaluation,
        "utterances": len(reference.words),
        "words": int(reference.words.sum()),
        "accuracy_budget": inputs.config.accuracy_budget,
        "wer_pytorch": round(reference.wer, 3),
        "wer_pytorch_ci95": wer_ci95(reference),
        **(_against_greedy("wer_pytorch", measured.quality[PYTORCH]) if searched else {}),
        "artifacts": [_score(r, measured, searched) for r in measured.results if r.key in measured.quality],
    }


def _score(result: PassResult, measured: Measured, searched: bool) -> dict[str, Any]:
    own, reference = measured.quality[result.key].score, measured.quality[PYTORCH].score
    return {
        "backend": result.backend,
        "precision": result.precision,
        "wer": round(own.wer, 3),
        "wer_ci95": wer_ci95(own),
        "wer_added": round(own.wer - reference.wer, 3),
        "wer_added_ci95": difference_ci95(own, reference),
        **(_against_greedy("wer", measured.quality[result.key]) if searched else {}),
    }


def _against_greedy(key: str, quality: Quality) -> dict[str, Any]:
    """What greedy decoding makes of the same log_probs, and the search's WER minus that in points."""
    own, greedy = quality.score, quality.greedy
    return {
        f"{key}_greedy": round(greedy.wer, 3),
        f"{key}_greedy_ci95": wer_ci95(greedy),
        f"{key}_against_greedy": round(own.wer - greedy.wer, 3),
        f"{key}_against_greedy_ci95": difference_ci95(own, greedy),
    }


def _drift(measured: Measured) -> list[dict[str, Any]]:
    """Divergence over a long stream of every artifact that ran; empty without recordings."""
    return [
        {"backend": r.backend, "precision": r.precision, **summary(measured.drift[r.key])}
        for r in measured.results
        if r.key in measured.drift
    ]


def _is_counted(inputs: Inputs) -> bool:
    """A graph in the place of a model shows no operators to count."""
    return inputs.loaded.architecture != onnx_model.ARCHITECTURE


def _prediction(inputs: Inputs, measured: Measured) -> dict[str, Any]:
    """Beside what the device measured, or this host where it is of the target's kind."""
    if inputs.device_bench:
        times = {
            key: {"latency_ms": one.latency_ms, "rtf": one.rtf, "where": "device"}
            for key, one in inputs.device_bench.items()
        }
    elif inputs.latency_is_targets:
        times = {
            key: {"latency_ms": one["chunk_latency_ms"]["p50"], "rtf": one["rtf"], "where": "host"}
            for key, one in measured.latency.items()
        }
    else:
        times = {}
    work = prediction.count_work(inputs.loaded.model, inputs.spec)
    return prediction.section(inputs.target, work, measured.results, times, inputs.chunk_ms)


def _performance(inputs: Inputs, measured: Measured) -> dict[str, Any]:
    return {
        "host": provenance.host(),
        "host_is_target_arch": inputs.latency_is_targets,
        "results": list(measured.latency.values()),
    }
