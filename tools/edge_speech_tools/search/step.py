"""The step of `optimize` that puts the model which was searched out in the place of the given one."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from edge_speech.errors import CheckFailed, InputError
from edge_speech.target import load_target
from edge_speech_tools.cache import Cache
from edge_speech_tools.choice import Choice, Rules, choose
from edge_speech_tools.evaluation import PYTORCH
from edge_speech_tools.job import Job, load_job
from edge_speech_tools.passes import load_passes
from edge_speech_tools.plan import OptimizeConfig, make_plan, ordered_passes
from edge_speech_tools.reference import single_thread
from edge_speech_tools.search import finalists, study
from edge_speech_tools.search.finalists import Finalist
from edge_speech_tools.search.model import job_of, model_space
from edge_speech_tools.search.options import SearchOptions
from edge_speech_tools.search.result import Searched
from edge_speech_tools.search.space import Space, baselines, in_words, settings_of
from edge_speech_tools.search.study import Trial
from edge_speech_tools.search.trial import Figures, measure_trial
from edge_speech_tools.stages import build, quality_of


def kept(job: Job) -> dict[str, str]:
    """How many of the trials are there already, for the plan; writes nothing."""
    options = _options(job)
    count = study.kept(job.cache.folder_of("search", _key(job, load_jobs(job)), make=False))
    return {"search": f"{min(count, options.trials)} of {options.trials} trials kept" if count else ""}


def search(job: Job, rules: Rules, work: Path) -> tuple[Job, Searched]:
    """Run the trials that are missing, measure the best again, choose. The job that comes back goes on.

    Raises InputError on checkpoints that cannot be searched, CheckFailed when nothing is within the budget.
    """
    options, jobs = _options(job), load_jobs(job)
    backend, given_wer = _given(job, work)
    space = _space(job, jobs, backend)
    folder = job.cache.folder_of("search", _key(job, jobs))
    _explore(job, jobs, space, folder)
    trials = study.ended(study.open_study(folder))[: options.trials]
    plain = [settings_of(space, partial(_answer, answers)) for answers in baselines(space)]
    found, failed = finalists.measure_again(
        finalists.promising(trials, plain),
        job,
        space,
        lambda settings: job_of(jobs[settings.model], job, space, settings),
        work,
    )
    front = _front(found, failed)
    candidates = [one.candidate(given_wer, space.backend, len(jobs)) for one in front]
    choice = choose(candidates, replace(rules, timed="ms per second of audio"))
    chosen = next(one for one, c in zip(front, candidates, strict=True) if c.key == choice.kept[0])
    job.progress.say(f"search   chosen: {choice.kept[0]}")
    report = _report(options, trials, found, front, chosen=chosen, failed=failed)
    return chosen.job, Searched(report, _chosen(chosen, jobs), _reasons(choice, chosen, job, len(trials)))


def load_jobs(job: Job) -> dict[str, Job]:
    """The jobs of the given model and of the further ones by name. Raises InputError."""
    paths = [job.config.model, *_options(job).models]
    names = [path.name for path in paths]
    named = names if len(set(names)) == len(names) else [str(path) for path in paths]
    if len(set(named)) < len(named):
        raise InputError(f"--search-models names a checkpoint twice; got {', '.join(named)}")
    configs = [replace(job.config, model=path, quiet=True) for path in paths[1:]]
    others = [load_job(config, job.target, job.plan, job.passes, job.cache) for config in configs]
    heard = [replace(other, progress=job.progress) for other in others]
    return dict(zip(named, [job, *heard], strict=True))


def _options(job: Job) -> SearchOptions:
    assert job.config.search is not None
    return job.config.search


def _key(job: Job, jobs: Mapping[str, Job]) -> str:
    """Trials are of these checkpoints and precisions, on these recordings; with more of them it goes on."""
    options = _options(job)
    checkpoints = {name: one.keys.checkpoint for name, one in jobs.items()}
    return job.keys.search([checkpoints, job.plan.candidates, options.limit, options.chunk_ms])


def _given(job: Job, work: Path) -> tuple[str, float]:
    """The backend that is searched, the first of which an artifact can be timed here, and the given model's
    WER in PyTorch. Raises InputError."""
    trying = work / "given"
    trying.mkdir()
    for name in job.plan.candidates:
        plan = replace(job.plan, passes=tuple(ordered_passes([name], job.passes)))
        made = build(replace(job, plan=plan), trying)
        if made.results[-1].check_backend == made.results[-1].backend:
            return made.results[-1].backend, quality_of(job, made, PYTORCH).score.wer
    raise InputError(
        f"nothing that is made for {job.target.name} can be timed here, so there is nothing to search by; "
        "leave out --search"
    )


def _space(job: Job, jobs: Mapping[str, Job], backend: str) -> Space:
    passes = {job.passes[n].PRECISION: n for n in job.plan.candidates if job.passes[n].BACKEND == backend}
    return Space(tuple(model_space(name, one) for name, one in jobs.items()), backend, passes)


# -- the trials ---------------------------------------------------------------------------------------------


def _explore(job: Job, jobs: Mapping[str, Job], space: Space, folder: Path) -> None:
    options, begun = _options(job), study.begin(folder, space)
    known = len(study.ended(begun))
    job.progress.say(f"search   {min(known, options.trials)} of {options.trials} trials kept")
    if options.jobs > 1 and known < options.trials:
        arguments = (job.config, job.cache.folder, space, folder)
        with study.in_processes(_work, arguments, options.jobs) as running:
            study.watch(begun, space, options.trials, running, job.progress)
        begun = study.begin(folder, space)  # what a process that was killed left undone
    _run(job, jobs, space, begun, folder)


def _work(config: OptimizeConfig, cache: Path, space: Space, folder: Path) -> None:
    """One of several processes: trials until there are enough. Ctrl-C is its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target, passes = load_target(config.target), load_passes()
    with single_thread():
        config = replace(config, quiet=True)
        job = load_job(config, target, make_plan(config, target, passes), passes, Cache(cache))
        _run(job, load_jobs(job), space, study.open_study(folder), folder)


def _run(job: Job, jobs: Mapping[str, Job], space: Space, begun: optuna.Study, folder: Path) -> None:
    measure = partial(measure_trial, jobs, job, space, timing=folder / study.TIMING)
    study.run_missing(begun, space, _options(job).trials, folder, measure=measure, progress=job.progress)


# -- what came of it ----------------------------------------------------------------------------------------


def _answer(answers: Mapping[str, Any], name: str, _: Sequence[Any]) -> Any:
    return answers[name]


def _front(found: Sequence[Finalist], failed: Mapping[int, str]) -> list[Finalist]:
    """Raises CheckFailed where no trial could be measured."""
    if not found:
        reasons = "; ".join(f"trial {number}: {reason}" for number, reason in failed.items())
        raise CheckFailed(f"no trial of the search could be measured ({reasons or 'all failed'})")
    flags = finalists.pareto([_objectives(one.figures) for one in found])
    return [one for one, is_best in zip(found, flags, strict=True) if is_best]


def _objectives(figures: Figures) -> tuple[float, float, float]:
    return figures.wer, figures.rtf, float(figures.bytes)


def _report(
    options: SearchOptions,
    trials: Sequence[Trial],
    found: Sequence[Finalist],
    front: Sequence[Finalist],
    *,
    chosen: Finalist,
    failed: Mapping[int, str],
) -> dict[str, Any]:
    again = {one.trial.number: one.figures for one in found}
    best = {one.trial.number for one in front}
    several = len({trial.settings.model for trial in trials})
    return {
        "asked": options.trials,
        "objectives": ["wer", "rtf", "bytes"],
        "trials": [
            {
                "trial": trial.number,
                "name": in_words(trial.settings, several),
                "settings": asdict(trial.settings),
                **_figures(again.get(trial.number, trial.figures)),
                "finalist": trial.number in again,
                "pareto": trial.number in best,
                "chosen": trial.number == chosen.trial.number,
                "failed": failed.get(trial.number, trial.reason),
            }
            for trial in trials
        ],
    }


def _figures(figures: Figures | None) -> dict[str, Any]:
    names = list(Figures.__dataclass_fields__)
    return dict.fromkeys(names) if figures is None else asdict(figures)


def _chosen(chosen: Finalist, jobs: Mapping[str, Job]) -> dict[str, Any]:
    settings = chosen.trial.settings
    checkpoint = jobs[settings.model].keys.checkpoint
    return {"trial": chosen.trial.number, **asdict(settings), "checkpoint_sha256": checkpoint}


def _reasons(choice: Choice, chosen: Finalist, job: Job, count: int) -> tuple[str, ...]:
    words = f"{count} trials were searched; WER is against the given {job.config.model.name} in PyTorch."
    own, other = job.spec.chunk_frames, chosen.job.spec.chunk_frames
    longer_ms = (other - own) * job.line.frontend.frame_shift_ms
    waits = [f"Chunks are {longer_ms:g} ms longer than the given model's: words come that much later."]
    return (words, *choice.reasons, *(waits if longer_ms > 0 else []))
