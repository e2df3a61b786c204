"""model.pt → bundle: the plan, then its steps in order.

`load → build → parity → quality → latency → choose → bundle`; everything happens in a temporary sibling of
the output, which is renamed to it as the very last act.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_speech import bundle
from edge_speech.backends import load_encoder
from edge_speech.bundle_manifest import Manifest
from edge_speech.commands.decoding import decoder_options
from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.decoder import manifest_decoder
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict, frontend_to_dict
from edge_speech.quality import require_words
from edge_speech.target import Target, load_target
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech_tools import golden, language_model, recordings, report
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.choice import Candidate, Choice, Rules, choose
from edge_speech_tools.contract import check_contract, require_streaming
from edge_speech_tools.decoding import Line
from edge_speech_tools.evaluation import PYTORCH, Measured, Quality, measure_parity, measure_quality
from edge_speech_tools.language_model import Fit, check_fit, oov_line
from edge_speech_tools.latency import measure_latency
from edge_speech_tools.passes import Pass, PassResult, Source, load_passes
from edge_speech_tools.plan import AUTO, REFERENCE, OptimizeConfig, Plan, make_plan
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import RecordingSet
from edge_speech_tools.reference import TorchEncoder, single_thread
from edge_speech_tools.report import Inputs


@dataclass(frozen=True)
class OptimizeResult:
    """Where the bundle is, and the content of its report.json."""

    bundle: Path
    report: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything the steps read: checked arguments, the loaded model, the recordings."""

    config: OptimizeConfig
    target: Target
    plan: Plan
    loaded: LoadedModel
    spec: StreamingSpec
    line: Line
    fit: Fit | None
    evaluation: RecordingSet | None
    calibration: RecordingSet | None
    progress: Progress

    @property
    def compared(self) -> RecordingSet:
        """What parity and latency are measured on."""
        made_up = recordings.synthetic(self.line.frontend.sample_rate)
        return self.evaluation or self.calibration or made_up

    @property
    def reference(self) -> TorchEncoder:
        """The PyTorch model as an engine."""
        return TorchEncoder(self.loaded.model, self.spec)


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech optimize`: {"bundle", …report}, or the plan. Raises InputError, CheckFailed."""
    config = config_from(args)
    target = load_target(config.target)
    if args.dry_run:
        plan = make_plan(config, target, load_passes())
        if not args.json:
            print(plan.as_text())
        return {"target": target.name, "plan": plan.as_json()}
    result = optimize(config)
    return {"bundle": str(result.bundle), **result.report}


def config_from(args: argparse.Namespace) -> OptimizeConfig:
    """The command line's arguments as a config."""
    names = tuple(name for name in (args.backends or "").split(",") if name)
    return OptimizeConfig(
        model=Path(args.model),
        target=args.target,
        output=Path(args.output),
        eval_manifest=Path(args.eval) if args.eval else None,
        calibration_manifest=Path(args.calibration) if args.calibration else None,
        accuracy_budget=args.accuracy_budget,
        precision=args.precision,
        backends=names,
        decoder=decoder_options(args),
        force=args.force,
        quiet=args.quiet,
        command=" ".join(["edge-speech", *sys.argv[1:]]),
    )


def optimize(config: OptimizeConfig) -> OptimizeResult:
    """Carry out the plan. Raises InputError on bad input, CheckFailed when a gate does not hold."""
    target, passes = load_target(config.target), load_passes()
    plan = make_plan(config, target, passes)
    bundle.check_output(config.output, config.force)
    job = _load(config, target, plan)
    try:
        with bundle.new_bundle(config.output, config.force) as folder:
            with tempfile.TemporaryDirectory(dir=folder.parent) as work, single_thread():
                content = _run(job, passes, Path(work), folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {config.output} ({reason}); nothing of it was left") from error
    job.progress.say(f"bundle   {config.output}")
    return OptimizeResult(config.output, content)


def _load(config: OptimizeConfig, target: Target, plan: Plan) -> Job:
    if not config.accuracy_budget >= 0:
        raise InputError(
            f"the accuracy budget is {config.accuracy_budget:g}; it must be 0 or more points of WER"
        )
    decoder, evaluation = config.decoder.over(None), _evaluation(config)
    loaded = require_streaming(config.model, load_model(config.model))
    progress = Progress(config.quiet)
    if loaded.config.get("head") == "linear":
        raise InputError(
            f"{config.model} has a linear head, which gives numbers; a bundle decodes log_probs, so train "
            "one with model.head = 'log_softmax'"
        )
    frontend = frontend_from_dict(loaded.frontend)
    return Job(
        config=config,
        target=target,
        plan=plan,
        loaded=loaded,
        spec=check_contract(loaded.model, len(loaded.tokens), frontend.num_features),
        line=Line(frontend, loaded.tokens, decoder),
        fit=_fit(decoder, loaded.tokens, evaluation, progress),
        evaluation=evaluation,
        calibration=_calibration(config),
        progress=progress,
    )


def _fit(
    decoder: CtcConfig | None, tokens: list[str], evaluation: RecordingSet | None, progress: Progress
) -> Fit | None:
    """Before minutes of work: does the decoder take its config, and do the language model's words fit?"""
    if decoder is None:
        return None
    CtcPrefixBeam(tokens, decoder)
    if decoder.lm is None:
        return None
    texts = [recording.text for recording in evaluation.recordings] if evaluation else []
    fit = check_fit(decoder.lm, decoder.lm_level, tokens, texts)
    if fit.warning():
        progress.say(f"decoder  {fit.warning()}")
    if fit.on_texts is not None:
        progress.say(f"decoder  {oov_line(fit.on_texts)}")
    return fit


def _evaluation(config: OptimizeConfig) -> RecordingSet | None:
    if config.eval_manifest is None:
        return None
    found = recordings.from_manifest(config.eval_manifest)
    require_words([recording.text for recording in found.recordings])
    return found


def _calibration(config: OptimizeConfig) -> RecordingSet | None:
    path = config.calibration_manifest
    return recordings.from_manifest(path, need_text=False) if path else None


def _run(job: Job, passes: Mapping[str, Pass], work: Path, folder: Path) -> dict[str, Any]:
    """All steps after loading; returns the report."""
    measured = _measure(job, _build(job, passes, work))
    choice = _choose(job, passes, measured)
    for reason in choice.reasons:
        job.progress.say(f"choice   {reason}")
    return _write(job, folder, measured, choice)


def _build(job: Job, passes: Mapping[str, Pass], work: Path) -> tuple[PassResult, ...]:
    """Run the passes in the plan's order."""
    source = Source(job.loaded.model, job.spec, work, _calibration_features(job), job.target.recipe)
    results = []
    for name in job.progress.bar(job.plan.passes, "build"):
        results.append(passes[name].run(source))
        job.progress.say(f"build    {results[-1].key}: {results[-1].path.stat().st_size} bytes")
    return tuple(results)


def _calibration_features(job: Job) -> Sequence[FloatArray]:
    """Computed as they are read, so that a set of any length fits into memory."""
    return CalibrationSet(job.calibration.recordings, job.line.frontend) if job.calibration else ()


def _measure(job: Job, results: tuple[PassResult, ...]) -> Measured:
    """Parity, then WER, then latency, of every artifact that an engine here can run."""
    engines = {
        r.key: load_encoder(r.check_backend, r.path, job.spec) for r in results if r.check_backend is not None
    }
    differences = measure_parity(job.line, job.reference, engines, job.compared, job.progress)
    quality: dict[str, Quality] = {}
    if job.evaluation is not None:
        encoders = {PYTORCH: job.reference, **engines}
        quality = measure_quality(job.line, encoders, job.evaluation.recordings, job.progress)
    timed = [r for r in results if r.check_backend == r.backend]
    latency = measure_latency(job.line, job.spec, timed, job.compared.recordings, job.progress)
    return Measured(results, differences, quality, latency, job.compared.name)


def _choose(job: Job, passes: Mapping[str, Pass], measured: Measured) -> Choice:
    config = job.config
    order = [f"{passes[name].BACKEND}/{passes[name].PRECISION}" for name in job.plan.candidates]
    by_key = {result.key: result for result in measured.results}
    rules = Rules(
        precision=config.precision,
        prefer=job.target.prefer,
        accuracy_budget=config.accuracy_budget,
        measures_device=_is_target(job.target),
        latency_budget_ms=job.target.latency_budget_ms,
    )
    beside = [r for r in measured.results if r.key not in order and r.precision == REFERENCE]
    references = [_candidate(r, measured) for r in beside if config.precision != AUTO]
    return choose([_candidate(by_key[key], measured) for key in order], rules, references)


def _candidate(result: PassResult, measured: Measured) -> Candidate:
    parity = measured.parity.get(result.key)
    quality, latency = measured.quality.get(result.key), measured.latency.get(result.key)
    return Candidate(
        key=result.key,
        backend=result.backend,
        precision=result.precision,
        bytes=result.path.stat().st_size,
        argmax_agreement=parity.argmax_agreement if parity else None,
        wer_added=quality.score.wer - measured.quality[PYTORCH].score.wer if quality else None,
        latency_ms=latency["chunk_latency_ms"]["p50"] if latency else None,
        latency_p99_ms=latency["chunk_latency_ms"]["p99"] if latency else None,
    )


def _is_target(target: Target) -> bool:
    """Whether latency measured here says something about the target: same instruction set."""
    return platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64") == target.arch


def _write(job: Job, folder: Path, measured: Measured, choice: Choice) -> dict[str, Any]:
    """Fill the bundle's folder; returns the report."""
    by_key = {result.key: result for result in measured.results}
    kept = [by_key[key] for key in choice.kept]
    companions = [path for result in kept for path in result.companions]
    for path in [*(result.path for result in kept), *companions]:
        shutil.copyfile(path, folder / path.name)
    recording = job.compared.recordings[0]
    vectors = golden.write_golden(folder, job.line, job.reference, recording)
    content = report.content(_inputs(job, recording.name), measured, choice)
    report.write(folder, content)
    reports = [*report.FILES, *(path.name for path in companions)]
    manifest = Manifest(
        target=job.target.name,
        frontend=frontend_to_dict(job.line.frontend),
        encoder=job.spec,
        decoder=manifest_decoder(job.line.decoder, 0, language_model.write(folder, job.line.decoder)),
        tokens=bundle.write_tokens(folder, job.loaded.tokens),
        artifacts=tuple(_entry(folder, result, measured) for result in kept),
        golden=vectors,
        reports=tuple(bundle.describe_file(folder, name) for name in reports),
        quality=report.manifest_quality(content, kept),
        performance=report.manifest_performance(content, kept),
        provenance=content["provenance"],
    )
    bundle.write_manifest(folder, manifest)
    return content


def _entry(folder: Path, result: PassResult, measured: Measured) -> bundle.Artifact:
    return bundle.describe_artifact(
        folder,
        result.path.name,
        backend=result.backend,
        precision=result.precision,
        status=report.status(result, measured),
        command=result.command,
    )


def _inputs(job: Job, golden_name: str) -> Inputs:
    """What the report says about where the bundle comes from."""
    return Inputs(
        config=job.config,
        target=job.target,
        plan=job.plan,
        loaded=job.loaded,
        spec=job.spec,
        decoder=language_model.describe_decoder(job.line.decoder, job.config.decoder.lm, job.fit),
        evaluation=job.evaluation.name if job.evaluation else None,
        golden=f"{job.compared.name}: {golden_name}",
        latency_is_targets=_is_target(job.target),
    )
