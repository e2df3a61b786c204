"""A model forced to break in eight bits: does the fallback find the layer, and does the budget hold? JSON.

    python benchmarks/broken_layer.py model.pt --eval dev.jsonl --calibration train.jsonl [--layer NAME]

The model is calibrated; then the layer's weights are made fifty times larger and the norm before it fifty
times smaller. In floating point it is the same function, but the scales kept in the checkpoint are wrong for
that layer by fifty, twice: as if its weights had been changed after quantisation-aware training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from edge_speech.features import frontend_from_dict
from edge_speech.training.checkpoint import load_model, save_model
from edge_speech_tools import recordings
from edge_speech_tools.calibration import CalibrationSet, calibrate
from edge_speech_tools.pipeline import optimize
from edge_speech_tools.plan import OptimizeConfig
from edge_speech_tools.provenance import describe_tools, host

FACTOR = 50.0


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "broken.pt"
        break_layer(args.model, args.calibration, args.layer, broken)
        config = OptimizeConfig(
            broken,
            "linux-x86_64",
            Path(folder) / "bundle",
            args.eval,
            args.calibration,
            precision="int8-static",
        )
        report = optimize(config).report
    document = {"host": host(), "tools": describe_tools(), "broken": args.layer, "factor": FACTOR}
    wanted = ("quality", "decision", "sensitivity")
    print(json.dumps({**document, **{key: report[key] for key in wanted if key in report}}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint of a conformer, model.pt")
    parser.add_argument("--eval", type=Path, required=True, help="manifest to measure words on")
    parser.add_argument("--calibration", type=Path, required=True, help="manifest to measure ranges on")
    parser.add_argument(
        "--layer", default="layers.7.convolution.expand", help="a Linear layer that a norm stands before"
    )
    return parser.parse_args()


def break_layer(model: Path, calibration: Path, name: str, output: Path) -> None:
    """Write the broken checkpoint with the scales of the whole one."""
    loaded = load_model(model)
    heard = recordings.from_manifest(calibration, need_text=False).recordings
    scales = calibrate(
        loaded.model,
        loaded.model.spec,  # type: ignore[union-attr, arg-type]
        CalibrationSet(heard, frontend_from_dict(loaded.frontend)),
    )
    layer = loaded.model.get_submodule(name)
    norm = loaded.model.get_submodule(f"{name.rpartition('.')[0]}.norm")
    with torch.no_grad():
        layer.weight *= FACTOR  # type: ignore[operator]
        norm.weight /= FACTOR  # type: ignore[operator]
        norm.bias /= FACTOR  # type: ignore[operator]
    save_model(output, replace(loaded, quantization=scales))


if __name__ == "__main__":
    main()
