"""edge-speech build-engine"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_speech.backends import tensorrt
from edge_speech.bench import read_golden
from edge_speech.bundle import GOLDEN_LOG_PROBS, GOLDEN_WAVEFORM, Artifact, Bundle, read_bundle
from edge_speech.encoder import step_buffers
from edge_speech.engine_build import build, check_version
from edge_speech.engine_cache import (
    FOLDER,
    Options,
    engine_path,
    key_of,
    new_engine,
    read_engine,
    tensorrt_module,
    timing_name,
    write_note,
)
from edge_speech.engine_recipe import PRECISIONS, SUFFIX, EngineRecipe, read_recipe
from edge_speech.errors import CheckFailed, EngineRefused, InputError
from edge_speech.gpu import open_gpu
from edge_speech.power_mode import require_power_mode
from edge_speech.progress import phase_bar
from edge_speech.recognizer import Recognizer
from edge_speech.verification import ArtifactCheck, compare

SUMMARY = "build a bundle's TensorRT engine on this device, and prove it equal"
EXAMPLES = "edge-speech build-engine bundle\nedge-speech build-engine bundle --precision fp16 --dla-core 0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, and what the person at the device chooses."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle; the engine is kept in it")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the first that the bundle plans")
    parser.add_argument("--dla-core", type=int, metavar="N", help="use this DLA core where it can, fp16 only")
    parser.add_argument(
        "--power-mode",
        metavar="MODE",
        help="refuse unless the board runs in this nvpmodel mode (name or number)",
    )
    parser.add_argument("--force", action="store_true", help="build even if the engine is there")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Build, compare, keep. Raises InputError; CheckFailed when the build fails or the engine differs."""
    bundle = _open(args.bundle)
    artifact, recipe = _planned(bundle, args.precision)
    if args.dla_core is not None:
        recipe = replace(recipe, dla_core=args.dla_core)
    trt = tensorrt_module()
    check_version(trt.__version__, recipe)
    gpu, options = open_gpu(), Options(recipe.dla_core, require_power_mode(args.power_mode))
    key = key_of(bundle, trt.__version__, gpu)
    path, began = engine_path(bundle, artifact, key), time.monotonic()
    kept, captured, check = not args.force and _is_kept(path, options), None, None
    if not kept:
        with gpu.current(), phase_bar("build", args.quiet) as reached, new_engine(path) as fresh:
            timing = bundle.root / FOLDER / timing_name(recipe, key)
            fresh.write_bytes(build(trt, bundle.root / artifact.path, recipe, timing, reached))
            write_note(fresh, key, options, artifact, recipe.version_compatible)
            captured, check = _compared(bundle, artifact, fresh)
    return {
        "engine": str(path),
        "precision": recipe.precision,
        "built": not kept,
        "seconds": round(time.monotonic() - began, 1),
        **asdict(key),
        **asdict(options),
        "cuda_graph": captured,
        "max_abs_difference": check and check.max_abs_difference,
        "agreement": check and check.agreement,
    }


def show(document: dict[str, Any], args: argparse.Namespace) -> None:
    """What there is now."""
    where = "TensorRT {tensorrt_version} on {gpu_name} ({compute_capability})".format(**document)
    if not document["built"]:
        print(f"{document['engine']}: there already, for {where}; --force builds it again")
        return
    print(f"{document['engine']}: {document['precision']}, for {where}, {document['seconds']:g} s")
    if document["max_abs_difference"] is None:
        print("the bundle has no golden vectors, so the engine was not compared")
    else:
        difference, agreement = document["max_abs_difference"], document["agreement"]
        print(
            f"golden log_probs: largest difference {difference:.2e}, "
            f"{agreement:.1%} of the best symbols agree"
        )


def _open(path: str) -> Bundle:
    if Path(path).is_file():
        raise InputError(f"{path}: a packed bundle cannot keep an engine; give the folder it was packed from")
    return read_bundle(path)


def _planned(bundle: Bundle, precision: str | None) -> tuple[Artifact, EngineRecipe]:
    """The artifact to build from, its file checked, and its engine.toml."""
    planned = [a for a in bundle.manifest.artifacts if a.backend == "tensorrt"]
    found = [a for a in planned if precision in (None, a.precision)]
    if not found:
        has = ", ".join(a.precision for a in planned) or "none at all"
        raise InputError(f"{bundle.root}: no TensorRT artifact of this precision to build from; it has {has}")
    name = str(Path(found[0].path).with_suffix(SUFFIX))
    entry = next((e for e in bundle.manifest.reports if e.path == name), None)
    if entry is None:
        raise InputError(f"{bundle.root}: no {name}, so an older edge-speech made it; make the bundle again")
    bundle.verified_path(found[0])
    recipe = read_recipe(bundle.verified_path(entry))
    if recipe.onnx_sha256 != found[0].sha256 or recipe.precision != found[0].precision:
        raise InputError(f"{bundle.root}: {name} is not about {found[0].path}; make the bundle again")
    return found[0], recipe


def _is_kept(path: Path, options: Options) -> bool:
    """Whether the engine is there, undamaged and built as asked."""
    try:
        _, note = read_engine(path)
    except (EngineRefused, OSError):
        return False
    same_mode = options.power_mode is None or options.power_mode == note.options.power_mode
    return note.options.dla_core == options.dla_core and same_mode


def _compared(bundle: Bundle, artifact: Artifact, path: Path) -> tuple[bool, ArtifactCheck | None]:
    """Whether steps run as CUDA graphs; the engine against the golden vectors, None where there are none.

    Raises CheckFailed.
    """
    encoder = tensorrt.load(path, bundle.manifest.encoder, 1)
    captured = encoder.open(*step_buffers(encoder)).captured
    waveform, log_probs = (read_golden(bundle, name) for name in (GOLDEN_WAVEFORM, GOLDEN_LOG_PROBS))
    if waveform is None or log_probs is None:
        return captured, None
    try:
        recognizer = Recognizer.with_encoder(bundle, artifact, encoder)
        return captured, compare(recognizer, artifact, waveform, log_probs)
    except CheckFailed as error:
        raise CheckFailed(f"the engine was built and not kept: {error}") from None
