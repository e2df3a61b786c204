"""What will be done, decided before anything is done."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_speech.decoder import DecoderOptions
from edge_speech.errors import InputError
from edge_speech.target import Target
from edge_speech_tools.passes import Pass, needs_recordings, on_request
from edge_speech_tools.search.options import SearchOptions

AUTO = "auto"
REFERENCE = "fp32"
_LAYERS = "of a PyTorch model's layers, and a bundle holds a graph"
# Lossy enough that only a measured WER can admit them.
NEEDS_EVAL = ("int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only")


@dataclass(frozen=True)
class OptimizeConfig:
    """`edge-speech optimize`, its arguments. `accuracy_budget` is in percent points of absolute WER.

    `cache` is the folder that keeps finished steps; with None nothing is kept. With a `pruning_ratio` that
    much of the model goes first, and what is left is trained by `fine_tune`, changed by `recipe_changes`.
    `device_bench` are files that `edge-speech bench --json` wrote on the device.
    """

    model: Path
    target: str
    output: Path
    eval_manifest: Path | None = None
    calibration_manifest: Path | None = None
    accuracy_budget: float = 0.5
    precision: str = AUTO
    backends: tuple[str, ...] = ()
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    force: bool = False
    quiet: bool = False
    command: str = ""
    cache: Path | None = None
    search: SearchOptions | None = None
    pruning_ratio: float | None = None
    fine_tune: Path | None = None
    recipe_changes: tuple[str, ...] = ()
    device_bench: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Step:
    """One action of the plan: what is done, to what, and how; `cached` says how much is kept already."""

    action: str
    subject: str
    detail: str
    cached: str = ""


@dataclass(frozen=True)
class Plan:
    """`passes` are file stems in running order; `candidates` are those of them that may enter the bundle."""

    passes: tuple[str, ...]
    candidates: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]

    def marked(self, cached: Mapping[str, str]) -> Plan:
        """The plan with what is kept already, by action, of builds by action and subject."""
        steps = [
            replace(s, cached=cached.get(f"{s.action} {s.subject}", cached.get(s.action, "")))
            for s in self.steps
        ]
        return replace(self, steps=tuple(steps))

    def keys(self, passes: Mapping[str, Pass]) -> list[str]:
        """`backend/precision` of what the passes make."""
        return [f"{passes[name].BACKEND}/{passes[name].PRECISION}" for name in self.passes]

    def as_json(self) -> dict[str, Any]:
        """Plain data for reports."""
        return asdict(self)

    def as_text(self) -> str:
        """One numbered line per step, then what was left out and why."""
        lines = [
            f"{i:2d}. {s.action:<9} {s.subject}: {s.detail}{f' ({s.cached})' if s.cached else ''}"
            for i, s in enumerate(self.steps, 1)
        ]
        return "\n".join([*lines, *(f"    left out  {reason}" for reason in self.left_out)])


def make_plan(
    config: OptimizeConfig, target: Target, passes: Mapping[str, Pass], scaled: bool = False
) -> Plan:
    """Choose and order the passes; `scaled`: the checkpoint has the scales of its layers.

    Raises InputError on a backend or precision the target does not have.
    """
    backends = _backends(config, target, on_request(passes))
    _check_pruning(config)
    if config.precision not in (AUTO, *target.precisions):
        raise InputError(
            f"target {target.name} does not offer precision {config.precision!r}; "
            f"it offers {', '.join([*target.precisions, AUTO])}"
        )
    if config.precision == AUTO:
        candidates, left_out = _automatic(config, target, backends, passes, scaled)
        reference: list[str] = []
    else:
        candidates, obstacles = _explicit(config, backends, passes, scaled)
        made = {p.BACKEND for p in passes.values() if p.PRECISION == config.precision}
        left_out = [
            f"{b}: it is not made in {config.precision}" for b in backends if b not in made
        ] + obstacles
        reference = _references(candidates, passes)
    changed = "--pruning-ratio" if config.pruning_ratio is not None else "--search"
    if config.model.is_dir() and (config.search is not None or config.pruning_ratio is not None):
        raise InputError(f"{changed} makes other models out {_LAYERS}; give its model.pt")
    if config.search is not None and config.eval_manifest is None:
        raise InputError("--search weighs words against time and bytes; give --eval MANIFEST")
    return _plan(config, target, passes, candidates, reference=reference, left_out=left_out)


def narrowed(
    plan: Plan, config: OptimizeConfig, target: Target, passes: Mapping[str, Pass], candidates: Sequence[str]
) -> Plan:
    """`plan` with no candidates but these; fp32 is measured beside them."""
    reference = _references(candidates, passes)
    return _plan(config, target, passes, candidates, reference=reference, left_out=plan.left_out)


def _references(candidates: Sequence[str], passes: Mapping[str, Pass]) -> list[str]:
    used = {passes[name].BACKEND for name in candidates}
    return [n for n, p in passes.items() if p.PRECISION == REFERENCE and p.BACKEND in used]


def _plan(
    config: OptimizeConfig,
    target: Target,
    passes: Mapping[str, Pass],
    candidates: Sequence[str],
    *,
    reference: Sequence[str],
    left_out: Sequence[str],
) -> Plan:
    """The plan of these candidates, what they need, and `reference` to compare with."""
    ordered = ordered_passes([*candidates, *reference], passes)
    steps = _steps(config, target, [passes[name] for name in ordered])
    return Plan(tuple(ordered), tuple(candidates), tuple(steps), tuple(left_out))


def _check_pruning(config: OptimizeConfig) -> None:
    if config.pruning_ratio is None and (config.fine_tune or config.recipe_changes):
        raise InputError("--fine-tune and --set train what pruning leaves; give --pruning-ratio, such as 0.4")
    if config.recipe_changes and config.fine_tune is None:
        raise InputError("--set changes a recipe; give --fine-tune RECIPE.toml")
    if config.pruning_ratio is not None and config.calibration_manifest is None:
        raise InputError("what pruning takes out is measured on recordings; give --calibration MANIFEST")


def _backends(config: OptimizeConfig, target: Target, others: tuple[str, ...]) -> tuple[str, ...]:
    """Those asked for, `others` that our runtime does not load last."""
    unknown = [b for b in config.backends if b not in (*target.backends, *others)]
    if unknown:
        raise InputError(
            f"target {target.name} has no backend {unknown[0]!r}; it has {', '.join(target.backends)}, and "
            f"for other programs there is {', '.join(others)}"
        )
    own = [b for b in config.backends if b not in others]
    if config.backends and not own:
        raise InputError(
            f"{config.backends[0]} is for another program; a bundle also needs what our own runtime loads: "
            f"--backends {target.backends[0]},{config.backends[0]}"
        )
    return (*own, *(b for b in config.backends if b in others)) or target.backends


def _explicit(
    config: OptimizeConfig, backends: tuple[str, ...], passes: Mapping[str, Pass], scaled: bool
) -> tuple[list[str], list[str]]:
    """The passes of one precision, and those left out for want of recordings while another has its scales."""
    made = {name: p for name, p in passes.items() if p.BACKEND in backends}
    chosen = [name for name, p in made.items() if p.PRECISION == config.precision]
    if not chosen:
        can = sorted({p.PRECISION for p in made.values()})
        raise InputError(
            f"backend {', '.join(backends)} does not make {config.precision}; "
            f"it makes {', '.join(can) or 'nothing in this release'}"
        )
    obstacles = {name: reason for name in chosen if (reason := _obstacle(config, passes[name], scaled))}
    if len(obstacles) == len(chosen):
        raise InputError("; ".join(obstacles.values()))
    return _by_backend([n for n in chosen if n not in obstacles], backends, passes), list(obstacles.values())


def _obstacle(config: OptimizeConfig, of: Pass, scaled: bool) -> str | None:
    """Why this pass cannot run with what is given and installed."""
    key, package = f"{of.BACKEND}/{of.PRECISION}", getattr(of, "REQUIRES", None)
    if package and importlib.util.find_spec(package) is None:
        return f'{key} needs {package}; install it with `pip install "edge-speech[{package}]"`'
    if config.model.is_dir() and getattr(of, "NEEDS_LAYERS", False):
        return f"{key} is made {_LAYERS}; give its model.pt"
    if config.calibration_manifest is None and needs_recordings(of, scaled):
        return (
            f"{key} needs recordings to measure its ranges on; give --calibration MANIFEST "
            "(a few minutes like those of use, apart from --eval)"
        )
    return None


def _automatic(
    config: OptimizeConfig,
    target: Target,
    backends: tuple[str, ...],
    passes: Mapping[str, Pass],
    scaled: bool,
) -> tuple[list[str], list[str]]:
    """Everything the target offers, less what could not be made or judged, with the reasons."""
    chosen, left_out = [], _unmade(target, backends, passes)
    for name, p in passes.items():
        if p.BACKEND not in backends or p.PRECISION not in (*target.precisions, *_asked_for(p)):
            continue
        obstacle = _obstacle(config, p, scaled)
        if p.PRECISION in NEEDS_EVAL and config.eval_manifest is None:
            left_out.append(f"{p.BACKEND}/{p.PRECISION}: its accuracy cannot be measured without --eval")
        elif obstacle:
            left_out.append(obstacle)
        else:
            chosen.append(name)
    if not chosen:
        raise InputError(f"nothing is left to make for target {target.name}: {'; '.join(left_out)}")
    return _by_backend(chosen, backends, passes), left_out


def _asked_for(made: Pass) -> tuple[str, ...]:
    """The target's precisions are those of its own engines."""
    return (made.PRECISION,) if on_request({"": made}) else ()


def _unmade(target: Target, backends: tuple[str, ...], passes: Mapping[str, Pass]) -> list[str]:
    """Backends and precisions that no pass makes. Raises InputError when nothing is left."""
    made = {(p.BACKEND, p.PRECISION) for p in passes.values()}
    own = [b for b in backends if b in target.backends]
    idle = [b for b in own if not any((b, p) in made for p in target.precisions)]
    if len(idle) == len(own):
        raise InputError(
            f"this release makes nothing for {', '.join(idle)}; "
            f"target {target.name} has {', '.join(target.backends)}"
        )
    odd = [p for p in target.precisions if not any((b, p) in made for b in target.backends)]
    return [f"{name}: this release has no pass that makes it" for name in (*idle, *odd)]


def _by_backend(names: list[str], backends: tuple[str, ...], passes: Mapping[str, Pass]) -> list[str]:
    return sorted(names, key=lambda n: (backends.index(passes[n].BACKEND), passes[n].PRECISION != REFERENCE))


def ordered_passes(names: Sequence[str], passes: Mapping[str, Pass]) -> list[str]:
    """`names` and what they need, each after its needs, once."""
    ordered: list[str] = []
    for name in names:
        for needed in [*ordered_passes(passes[name].NEEDS, passes), name]:
            if needed not in ordered:
                ordered.append(needed)
    return ordered


def _steps(config: OptimizeConfig, target: Target, passes: list[Pass]) -> list[Step]:
    keys = ", ".join(f"{p.BACKEND}/{p.PRECISION}" for p in passes)
    compared = config.eval_manifest or config.calibration_manifest or "synthetic waveforms"
    steps = [Step("load", str(config.model), "read the checkpoint, check the encoder contract")]
    steps += _decoder_steps(config)
    steps += _pruning_steps(config)
    steps.append(Step("lint", "model and recordings", "what would go wrong later, with its remedy"))
    steps += [] if config.search is None else [_search_step(config, config.search)]
    steps += [Step("build", f"{p.BACKEND}/{p.PRECISION}", _what(p)) for p in passes]
    steps.append(Step("parity", keys, f"log_probs and text against PyTorch, state carried, on {compared}"))
    if config.eval_manifest:
        measured = f"WER with confidence interval on {config.eval_manifest}"
        beside = ", with the bundle's decoder and greedily" if _decoder_steps(config) else ""
        steps.append(Step("quality", f"pytorch, {keys}", measured + beside))
    steps.append(Step("latency", keys, "chunk latency on this host, rounds of all artifacts interleaved"))
    if config.eval_manifest or config.calibration_manifest:
        detail = "divergence from PyTorch over ten minutes of speech without reset"
        steps.append(Step("drift", keys, f"{detail}, on {compared}"))
    if config.device_bench:
        files = ", ".join(map(str, config.device_bench))
        steps.append(Step("device", target.name, f"latencies measured there, from {files}"))
    steps.append(Step("choose", target.name, _rule(config, target)))
    steps.append(Step("bundle", str(config.output), "artifacts, tokens, golden vectors, report, manifest"))
    return steps


def _what(of: Pass) -> str:
    """The first line of a pass's file, and its `remark()` about this install where it has one."""
    line, remark = (of.__doc__ or "").splitlines()[0], getattr(of, "remark", None)
    return f"{line} ({remark()})" if remark else line


def _search_step(config: OptimizeConfig, search: SearchOptions) -> Step:
    models = ", ".join(path.name for path in (config.model, *search.models))
    counted = f"{search.limit} utterances of {config.eval_manifest}" if search.limit else config.eval_manifest
    by = f", {search.jobs} processes" if search.jobs > 1 else ""
    detail = f"{search.trials} trials for WER on {counted}, time and bytes{by}; the chosen goes on"
    return Step("search", models, detail)


def _decoder_steps(config: OptimizeConfig) -> list[Step]:
    """Nothing when the bundle decodes greedily."""
    options = config.decoder
    if options.lm is not None:
        compared = " and the texts of --eval" if config.eval_manifest else ""
        detail = f"compile the language model, compare its words with the tokens{compared}"
        return [Step("decoder", options.lm, detail)]
    if options.beam_size in (None, 1):
        return []
    return [Step("decoder", f"beam {options.beam_size}", "prefix beam search without a language model")]


def _pruning_steps(config: OptimizeConfig) -> list[Step]:
    """Nothing without a ratio."""
    if config.pruning_ratio is None:
        return []
    trained = f", then trained by {config.fine_tune}" if config.fine_tune else ""
    detail = f"by what it does on {config.calibration_manifest}{trained}"
    return [Step("prune", f"{config.pruning_ratio:.0%} of the parameters", detail)]


def _rule(config: OptimizeConfig, target: Target) -> str:
    budget = f"within {config.accuracy_budget:g} points of PyTorch's WER"
    if config.precision != AUTO:
        return f"{config.precision} as asked, {budget}"
    return f"prefer {target.prefer}, {budget}"
