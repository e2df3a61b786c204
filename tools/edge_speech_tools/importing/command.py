"""`edge-speech import`: a model that someone else exported → a bundle that transcribes and is optimised."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_speech import bundle
from edge_speech.audio import read_audio
from edge_speech.backends import load_encoder
from edge_speech.bundle_manifest import Manifest
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import FrontendConfig, frontend_to_dict
from edge_speech.target import load_target
from edge_speech_tools import golden, provenance, recordings
from edge_speech_tools.decoding import Line
from edge_speech_tools.importing import checks, torch_models
from edge_speech_tools.importing.binding import Array, bind
from edge_speech_tools.importing.checks import ERROR, Doubt, Trial
from edge_speech_tools.importing.description import Description, read_description, silence
from edge_speech_tools.importing.families import Family, family_of
from edge_speech_tools.importing.tokens import Tokens, read_tokens
from edge_speech_tools.onnx_metadata import note
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording, at_rate

FILE_NAME = "encoder.onnx"
_INT8 = {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul"}
_SILENCE_S = 2.0


@dataclass(frozen=True)
class ImportConfig:
    """`edge-speech import`, its arguments."""

    model: Path
    tokens: Path
    output: Path
    spec: Path | None = None
    audio: Path | None = None
    target: str = "linux-x86_64"
    force: bool = False
    quiet: bool = False
    command: str = ""


@dataclass(frozen=True)
class Imported:
    """A model under our names, and the rest of its device line."""

    graph: onnx.ModelProto
    spec: StreamingSpec
    frontend: FrontendConfig
    tokens: Tokens
    family: str


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """{"bundle", "family", "encoder", "frontend", "doubts", "text"}. Raises InputError, CheckFailed."""
    return import_model(
        ImportConfig(
            model=Path(args.model),
            tokens=Path(args.tokens),
            output=Path(args.output),
            spec=Path(args.spec) if args.spec else None,
            audio=Path(args.audio) if args.audio else None,
            target=args.target,
            force=args.force,
            quiet=args.quiet,
            command=" ".join(["edge-speech", *sys.argv[1:]]),
        )
    )


def import_model(config: ImportConfig) -> dict[str, Any]:
    """Read, check, try out, write. Raises InputError; CheckFailed on a model that cannot be right."""
    progress = Progress(config.quiet)
    target = load_target(config.target)
    bundle.check_output(config.output, config.force)
    with tempfile.TemporaryDirectory() as work:
        imported = read_model(config, Path(work))
        progress.say(f"model    {imported.family}: {_in_words(imported)}")
        path = Path(work) / FILE_NAME
        onnx.save(imported.graph, path)
        recording = _recording(config, imported.frontend.sample_rate)
        found = try_model(path, imported, recording)
        for doubt in found:
            progress.say(f"check    {doubt.line()}")
        errors = [doubt for doubt in found if doubt.severity == ERROR]
        if errors:
            raise CheckFailed(f"{errors[0].message}; {errors[0].remedy}; the bundle was not written")
        text = _write(config, imported, path, recording, target.name)
    progress.say(f"bundle   {config.output}")
    return {
        "bundle": str(config.output),
        "family": imported.family,
        "encoder": asdict(imported.spec),
        "frontend": frontend_to_dict(imported.frontend),
        "doubts": [asdict(doubt) for doubt in found],
        "text": text,
    }


def _in_words(imported: Imported) -> str:
    spec = imported.spec
    window = f"window {spec.window_frames} frames, moves on by {spec.chunk_frames}"
    return (
        f"{window}, a row for {spec.subsampling_factor}, {spec.vocab_size} tokens, {len(spec.state)} states"
    )


def read_model(config: ImportConfig, work: Path) -> Imported:
    """The model as a graph of ours, its numbers checked. Raises InputError, CheckFailed."""
    described = read_description(config.spec)
    tokens = read_tokens(config.tokens, described.blank)
    model, described = _load(config.model, described, work)
    family = family_of(model, described)
    if family.frontend is None:
        raise InputError(f"nothing tells {config.model}'s front end; give it as [frontend] in --spec")
    bins = family.binding.window[1]
    checks.check_features(bins, family.frontend)
    rows, vocab_size = _probe(model, family)
    window = family.binding.window[0]
    right = window - family.chunk_frames
    factor = checks.check_numbers(rows, family.chunk_frames, described.subsampling_factor, right)
    checks.check_vocabulary(vocab_size, tokens)
    padding = described.padding_value if described.padding_value is not None else family.padding_value
    states = tuple(state.spec for state in family.binding.states)
    if not states:
        raise CheckFailed(f"{config.model} carries no state from step to step: it is no streaming model")
    spec = StreamingSpec(
        family.chunk_frames, right, factor, bins, vocab_size,
        silence(family.frontend) if padding is None else padding, states,
    )  # fmt: skip
    graph = bind(model, family.binding, spec, tokens.order)
    note(graph, spec, family.frontend)
    return Imported(graph, spec, family.frontend, tokens, family.name)


def _load(path: Path, described: Description, work: Path) -> tuple[onnx.ModelProto, Description]:
    """By what the file is: ONNX, or PyTorch's, which is exported first."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; allowed: an ONNX, TorchScript or torch.export (.pt2) model")
    if path.suffix != ".onnx":
        source = torch_models.exported(path) if path.suffix == ".pt2" else torch_models.torchscript(path)
        target = work / "exported.onnx"
        described = torch_models.to_onnx(source, described, target)
        path = target
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError has no typed home
        raise InputError(f"{path} is no ONNX model ({str(error).splitlines()[0]})") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InputError(f"{path} keeps its weights in other files; save it as one (onnx.save_model)")
    return model, described


def _probe(model: onnx.ModelProto, family: Family) -> tuple[int, int]:
    """Rows and columns of log_probs, from one step; states must come back as they went in.

    Raises InputError where the step fails, CheckFailed where they do not.
    """
    results = _step(model, family)
    log_probs, *following = results
    for state, got in zip([s for s in family.binding.states if s.output], following, strict=True):
        if (got.shape, str(got.dtype)) != (state.spec.shape, state.spec.dtype):
            raise CheckFailed(
                f"state {state.spec.name} goes in as {state.spec.dtype} {list(state.spec.shape)} and comes "
                f"out as {got.dtype} {list(got.shape)}: inputs and outputs are paired wrongly, or its length "
                "is not fixed; pair them in --spec, or export it with fixed caches"
            )
    if log_probs.ndim != 3 or len(log_probs) != 1:
        raise CheckFailed(
            f"{family.binding.log_probs} has shape {list(log_probs.shape)}; log_probs are (1, rows, tokens): "
            "name the right output in --spec"
        )
    return int(log_probs.shape[1]), int(log_probs.shape[2])


def _step(model: onnx.ModelProto, family: Family) -> list[Array]:
    """One step of the graph as it came: log_probs and the next states that it gives."""
    binding = family.binding
    window = np.zeros((1, *binding.window), np.float32)
    fed: dict[str, Any] = {
        binding.features: window.transpose(0, 2, 1) if binding.transposed else window,
        **binding.constants,
        **binding.first,
        **{s.input: np.zeros(s.spec.shape, s.spec.dtype) for s in binding.states if s.input},
    }
    wanted = [binding.log_probs, *(s.output for s in binding.states if s.output)]
    try:
        session = _session(model.SerializeToString())
        found: list[Array] = session.run(wanted, fed)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        reason = str(error).splitlines()[0]
        raise InputError(
            f"a step of {binding.window[0]} frames fails in onnxruntime ({reason}); correct --spec"
        ) from error
    return found


def _session(content: bytes | str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _recording(config: ImportConfig, sample_rate: int) -> Recording:
    """What was given, else something that is made up: enough to see a model move, not to hear words."""
    if config.audio is None:
        return recordings.synthetic(sample_rate).recordings[0]
    samples, rate = read_audio(config.audio)
    return Recording(config.audio.name, "", lambda: (np.asarray(samples, np.float32), rate), config.audio)


def try_model(path: Path, imported: Imported, recording: Recording) -> list[Doubt]:
    """Run speech and silence through the bound graph. Raises InputError where it does not run."""
    rate = imported.frontend.sample_rate
    step = _stepper(path, imported.spec)
    trials = [
        _tried(step, imported, waveform)
        for waveform in (at_rate(recording, rate), np.zeros(int(_SILENCE_S * rate), np.float32))
    ]
    found = checks.doubts(imported.spec, imported.tokens.ordered, *trials)
    if recording.path is None:
        return [d for d in found if d.check != "deaf"]
    return found


def _tried(step: Callable[..., Any], imported: Imported, waveform: FloatArray) -> Trial:
    return checks.try_out(step, imported.spec, imported.frontend, waveform)


def _stepper(path: Path, spec: StreamingSpec) -> Callable[..., Any]:
    load_encoder("onnxruntime", path, spec)  # names, shapes and types as the device will want them
    session = _session(str(path))
    names = ["features", *(s.name for s in spec.state)]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _write(config: ImportConfig, imported: Imported, path: Path, recording: Recording, target: str) -> str:
    """Write the bundle; returns the text of its golden recording."""
    engine = load_encoder("onnxruntime", path, imported.spec)
    line = Line(imported.frontend, imported.tokens.ordered)
    with bundle.new_bundle(config.output, config.force) as folder:
        (folder / FILE_NAME).write_bytes(path.read_bytes())
        vectors = golden.write_golden(folder, line, engine, recording)
        artifact = bundle.describe_artifact(
            folder, FILE_NAME, backend="onnxruntime", precision=_precision(imported.graph)
        )
        origin = {**provenance.describe(config.model, config.command), "imported_as": imported.family}
        bundle.write_manifest(
            folder,
            Manifest(
                target=target,
                frontend=frontend_to_dict(imported.frontend),
                encoder=imported.spec,
                decoder={"type": "greedy", "blank_id": 0},
                tokens=bundle.write_tokens(folder, imported.tokens.ordered),
                artifacts=(artifact,),
                golden=vectors,
                provenance={**origin, "golden": recording.name},
            ),
        )
        return (folder / bundle.GOLDEN_TEXT).read_text(encoding="utf-8")


def _precision(graph: onnx.ModelProto) -> str:
    if {node.op_type for node in graph.graph.node} & _INT8:
        return "int8-dynamic"
    half = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    return "fp16" if half else "fp32"
