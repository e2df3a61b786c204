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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_speech import bundle
from edge_speech.bundle_manifest import Manifest
from edge_speech.commands.decoding import decoder_options
from edge_speech.commands.extras import import_extra
from edge_speech.decoder import manifest_decoder
from edge_speech.encoder import StreamingSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import frontend_to_dict
from edge_speech.target import Target, load_target
from edge_speech.training.checkpoint import load_model
from edge_speech_tools import golden, language_model, report
from edge_speech_tools.cache import Cache
from edge_speech_tools.calibration import uncovered
from edge_speech_tools.choice import Candidate, Choice, Rules, choose
from edge_speech_tools.contract import require_streaming
from edge_speech_tools.evaluation import PYTORCH, Measured
from edge_speech_tools.fallback import fall_back, sensitivity
from edge_speech_tools.job import Job, load_job
from edge_speech_tools.linter import ERROR, Finding, lint_graphs, lint_limits
from edge_speech_tools.passes import PassResult, load_passes
from edge_speech_tools.plan import AUTO, REFERENCE, OptimizeConfig, make_plan
from edge_speech_tools.prune import step as pruning
from edge_speech_tools.reference import single_thread
from edge_speech_tools.report import Inputs
from edge_speech_tools.search.options import SearchOptions
from edge_speech_tools.search.result import Searched
from edge_speech_tools.stages import build, cached_steps, lint, measure


@dataclass(frozen=True)
class OptimizeResult:
    """Where the bundle is, and the content of its report.json."""

    bundle: Path
    report: dict[str, Any]


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech optimize`: {"bundle", …report}, or the plan. Raises InputError, CheckFailed."""
    config = config_from(args)
    target = load_target(config.target)
    if args.dry_run:
        return dry_run(config, target, show=not args.json)
    result = optimize(config)
    return {"bundle": str(result.bundle), **result.report}


def dry_run(config: OptimizeConfig, target: Target, show: bool) -> dict[str, Any]:
    """The plan, what of it is kept already, and what the linter finds; builds and writes nothing.

    Without the files only the plan. Raises InputError on bad input.
    """
    passes = load_passes()
    plan, findings = make_plan(config, target, passes, has_scales(config)), []
    given = [config.model, config.eval_manifest, config.calibration_manifest, *config.device_bench]
    if all(path.exists() for path in given if path is not None):
        with tempfile.TemporaryDirectory() as work, single_thread():
            job = load_job(config, target, plan, passes, Cache(config.cache or Path(work)))
            pruned = pruning.cached_job(job)
            if pruned is not None:
                searched = _search().kept(pruned) if config.search else {}
                plan = plan.marked({**cached_steps(pruned), **searched})
            findings = lint(replace(job, cache=Cache(Path(work))))
    if show:
        print("\n".join([plan.as_text(), *(f"    {finding.line()}" for finding in findings)]))
    found = [finding.as_json() for finding in findings]
    return {"target": target.name, "plan": plan.as_json(), "findings": found}


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
        cache=_cache_folder(args),
        search=_search_options(args),
        pruning_ratio=args.pruning_ratio,
        fine_tune=Path(args.fine_tune) if args.fine_tune else None,
        recipe_changes=tuple(args.set or ()),
        device_bench=tuple(map(Path, args.device_bench or ())),
    )


def _search_options(args: argparse.Namespace) -> SearchOptions | None:
    """None where nothing is searched. Raises InputError."""
    if args.search is None:
        if args.search_models or args.search_chunk_ms:
            raise InputError("--search-models and --search-chunk-ms are about a search; give --search N")
        return None
    if args.pruning_ratio is not None:
        raise InputError("--search tries pruning itself; leave out --pruning-ratio")
    _search()
    return SearchOptions(
        trials=args.search,
        jobs=args.search_jobs,
        limit=args.search_limit,
        models=tuple(Path(name) for name in (args.search_models or "").split(",") if name),
        chunk_ms=_numbers(args.search_chunk_ms or ""),
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise InputError(
            f"--search-chunk-ms is {text!r}; give milliseconds separated by commas, such as 160,320"
        ) from None


def _cache_folder(args: argparse.Namespace) -> Path | None:
    if args.no_cache:
        return None
    return Path(args.cache) if args.cache else default_cache(Path(args.output))


def optimize(config: OptimizeConfig) -> OptimizeResult:
    """Carry out the plan. Raises InputError on bad input, CheckFailed when a gate does not hold."""
    target, passes = load_target(config.target), load_passes()
    bundle.check_output(config.output, config.force)
    plan = make_plan(config, target, passes, has_scales(config))
    with _open_cache(config) as cache:
        job = pruning.pruned_job(load_job(config, target, plan, passes, cache))
        try:
            with bundle.new_bundle(config.output, config.force) as folder:
                with tempfile.TemporaryDirectory(dir=folder.parent) as work, single_thread():
                    content = _run(job, Path(work), folder)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"cannot write {config.output} ({reason}); nothing of it was left") from error
        if config.cache == default_cache(config.output):
            cache.drop_unused()
    job.progress.say(f"bundle   {config.output}")
    return OptimizeResult(config.output, content)


def default_cache(output: Path) -> Path:
    """Where `edge-speech optimize` keeps what it made, unless told: beside the bundle."""
    return output.with_name(f".{output.name}.cache")


def has_scales(config: OptimizeConfig) -> bool:
    """Does the checkpoint bring the scales that `--calibration` would be measured for? Raises InputError."""
    if config.calibration_manifest is not None or not config.model.is_file():
        return False
    loaded = require_streaming(config.model, load_model(config.model))
    spec: StreamingSpec = loaded.model.spec  # type: ignore[assignment]
    return bool(loaded.quantization) and not uncovered(loaded.model, spec, loaded.quantization)


@contextmanager
def _open_cache(config: OptimizeConfig) -> Iterator[Cache]:
    """The cache that was asked for, or one that is gone when the work is done."""
    if config.cache is not None:
        if config.cache.exists() and not config.cache.is_dir():
            raise InputError(f"{config.cache} is no folder; give --cache another, or --no-cache")
        yield Cache(config.cache)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Cache(Path(folder) / "cache")


def _run(job: Job, work: Path, folder: Path) -> dict[str, Any]:
    """All steps after loading; returns the report."""
    searched = None
    if job.config.search is not None:
        _tell(job, lint(job))
        job, searched = _search().search(
            job, replace(_rules(job), measures_device=_is_target(job.target)), work
        )
    job = replace(job, plan=job.plan.marked(cached_steps(job)))
    findings = lint(job)
    _tell(job, findings)
    made = build(job, work)
    graphs = lint_graphs(made.results, job.target.recipe)
    of_graphs = [*graphs, *lint_limits(made.results, job.target, job.device_bench)]
    _tell(job, of_graphs)
    measured = measure(job, made)
    made, put_back = fall_back(job, made, measured, work)
    if put_back is None:
        measured = replace(measured, sensitivity=sensitivity(job, made))
    else:
        measured = replace(measure(job, made), sensitivity=put_back.layers)
    choice = _choose(job, measured)
    if put_back is not None:
        choice = replace(choice, reasons=(put_back.reason(job.config.accuracy_budget), *choice.reasons))
    if searched is not None:
        choice = replace(choice, reasons=(*searched.reasons, *choice.reasons))
    for reason in choice.reasons:
        job.progress.say(f"choice   {reason}")
    return _write(job, folder, measured, choice, (*findings, *of_graphs), searched=searched)


def _search() -> ModuleType:
    """Few jobs search, and only they need Optuna."""
    return import_extra("edge_speech_tools.search.step", "search")


def _tell(job: Job, findings: Sequence[Finding]) -> None:
    """Say what the linter found. Raises CheckFailed on an error."""
    for finding in findings:
        job.progress.say(f"lint     {finding.line()}")
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise CheckFailed(f"{errors[0].message}; {errors[0].remedy}; the bundle was not written")


def _choose(job: Job, measured: Measured) -> Choice:
    config, passes = job.config, job.passes
    order = [f"{passes[name].BACKEND}/{passes[name].PRECISION}" for name in job.plan.candidates]
    by_key = {result.key: result for result in measured.results}
    beside = [r for r in measured.results if r.key not in order and r.precision == REFERENCE]
    references = [_candidate(r, job, measured) for r in beside if config.precision != AUTO]
    return choose([_candidate(by_key[key], job, measured) for key in order], _rules(job), references)


def _rules(job: Job) -> Rules:
    return Rules(
        precision=job.config.precision,
        prefer=job.target.prefer,
        accuracy_budget=job.config.accuracy_budget,
        measures_device=bool(job.device_bench) or _is_target(job.target),
        latency_budget_ms=job.target.latency_budget_ms,
    )


def _candidate(result: PassResult, job: Job, measured: Measured) -> Candidate:
    """Latencies are the device's where any are given: beside those the host's mean nothing."""
    parity, quality = measured.parity.get(result.key), measured.quality.get(result.key)
    latency, on_device = measured.latency.get(result.key), job.device_bench.get(result.key)
    if job.device_bench:
        times = (on_device.latency_ms, on_device.latency_p99_ms) if on_device else (None, None)
    else:
        times = tuple(latency["chunk_latency_ms"][p] for p in ("p50", "p99")) if latency else (None, None)
    return Candidate(
        key=result.key,
        backend=result.backend,
        precision=result.precision,
        bytes=result.path.stat().st_size,
        argmax_agreement=parity.argmax_agreement if parity else None,
        wer_added=quality.score.wer - measured.quality[PYTORCH].score.wer if quality else None,
        latency_ms=times[0],
        latency_p99_ms=times[1],
    )


def _is_target(target: Target) -> bool:
    """Whether latency measured here says something about the target: same instruction set."""
    return platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64") == target.arch


def _write(
    job: Job,
    folder: Path,
    measured: Measured,
    choice: Choice,
    findings: Sequence[Finding],
    *,
    searched: Searched | None,
) -> dict[str, Any]:
    """Fill the bundle's folder; returns the report."""
    by_key = {result.key: result for result in measured.results}
    kept = [by_key[key] for key in choice.kept]
    companions = [path for result in kept for path in result.companions]
    for path in [*(result.path for result in kept), *companions]:
        shutil.copyfile(path, folder / path.name)
    recording = job.compared.recordings[0]
    vectors = golden.write_golden(folder, job.line, job.reference, recording)
    content = report.content(_inputs(job, recording.name, findings, searched), measured, choice)
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


def _inputs(job: Job, golden_name: str, findings: Sequence[Finding], searched: Searched | None) -> Inputs:
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
        chunk_ms=job.chunk_ms,
        device_bench=job.device_bench,
        findings=findings,
        searched=searched,
        pruning=pruning.described(job),
    )
