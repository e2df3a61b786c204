"""Every architecture × every converter that runs here: what an artifact gives beside PyTorch, as JSON.

    python benchmarks/parity.py --eval dev.jsonl --calibration train.jsonl --markdown docs/parity.md

Each recording goes through the whole streaming line, chunk by chunk with the state carried. Architectures
have the weights they start from, the last layer's times eight so that symbols come and go; the shipped
checkpoints stand beside them, trained. `text_identical` is the share of recordings with the very same text:
of fp32 all, of int8 what is left of it. A pass that cannot run here, or not for a model, is a gap, named
with the reason.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edge_speech.backends import load_encoder, missing
from edge_speech.bundle import BLANK
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import frontend_from_dict
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech_tools import parity, recordings
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.decoding import Line, decode, decode_reference
from edge_speech_tools.passes import Pass, Source, load_passes
from edge_speech_tools.progress import Progress
from edge_speech_tools.provenance import describe_tools, host
from edge_speech_tools.recordings import Recording
from edge_speech_tools.reference import TorchEncoder, single_thread

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FBANK = {"type": "fbank", "num_mel_bins": 80}
TOKENS = [BLANK, *"abcdefghijklmnopqrstuvwxyz'", "▁"]
SHARPER = 8.0
CALIBRATION = 40


@dataclass(frozen=True)
class Heard:
    """What is read: `recordings` to compare on, and those that ranges are measured on."""

    recordings: Sequence[Recording]
    calibration: Sequence[Recording]


def main() -> None:
    args = parse()
    heard = Heard(
        recordings.from_manifest(args.eval, need_text=False).recordings[: args.limit],
        recordings.from_manifest(args.calibration, need_text=False).recordings[:CALIBRATION],
    )
    with single_thread():
        rows = [row for name, loaded in subjects() for row in rows_of(name, loaded, heard)]
    document = {
        "host": host(),
        "tools": describe_tools(),
        "recordings": len(heard.recordings),
        "results": rows,
    }
    if args.markdown:
        args.markdown.write_text(as_markdown(document), encoding="utf-8")
    print(json.dumps(document, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--eval", type=Path, required=True, help="manifest of recordings to compare on")
    parser.add_argument(
        "--calibration", type=Path, required=True, help=f"manifest whose first {CALIBRATION} give the ranges"
    )
    parser.add_argument("--limit", type=int, default=50, help="recordings of --eval (default: 50)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here too")
    return parser.parse_args()


def subjects() -> Iterator[tuple[str, LoadedModel]]:
    """Each architecture as it starts, then the shipped checkpoints."""
    for architecture in models.available():
        yield architecture, untrained(architecture)
    for path in sorted(EXAMPLES.glob("*/model.pt")):
        loaded = load_model(path)
        yield f"{path.parent.name} ({loaded.architecture})", loaded


def untrained(architecture: str) -> LoadedModel:
    """The architecture's own default size, with seeded weights and a last layer that speaks up."""
    torch.manual_seed(1)
    config = {"vocab_size": len(TOKENS)}
    model = models.build(architecture, config).eval()
    model.normalise([-8.0] * 80, [4.0] * 80)  # about the log-mel energies of speech
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= SHARPER
    return LoadedModel(model, TOKENS, FBANK, architecture, config, {})


def rows_of(name: str, loaded: LoadedModel, heard: Heard) -> Iterator[dict[str, Any]]:
    """One row for each pass: its figures, or why there are none."""
    line = Line(frontend_from_dict(loaded.frontend), loaded.tokens)
    reference = TorchEncoder(loaded.model, loaded.model.spec)  # type: ignore[union-attr, arg-type]
    wanted = list(decode_reference(line, reference, Progress(False).bar(heard.recordings, name)))
    with tempfile.TemporaryDirectory() as folder:
        features = CalibrationSet(heard.calibration, line.frontend)
        source = Source(
            reference.model,
            reference.spec,
            Path(folder),
            features,
            frontend=line.frontend,
            tokens=line.tokens,
        )
        for stem, one in in_order(load_passes()):
            row = {"model": name, "backend": one.BACKEND, "precision": one.PRECISION}
            try:
                result = one.run(source)
                backend = result.check_backend
                if backend is None or missing(backend):
                    raise InputError((backend and missing(backend)) or f"no engine here runs it ({stem})")
                encoder = load_encoder(backend, result.path, reference.spec)
                got = decode(line, encoder, heard.recordings, keep_log_probs=True)
                figures = asdict(parity.compare(wanted, got))
                yield {**row, "run_by": backend, "bytes": result.path.stat().st_size, **figures}
            except (InputError, CheckFailed) as error:
                yield {**row, "gap": str(error)}


def in_order(passes: Mapping[str, Pass]) -> list[tuple[str, Pass]]:
    """Each pass after those it needs."""
    return sorted(passes.items(), key=lambda item: (len(item[1].NEEDS), item[0]))


def as_markdown(document: dict[str, Any]) -> str:
    """The page of docs/."""
    rows = document["results"]
    names = list(dict.fromkeys(row["model"] for row in rows))
    blocks = [f"## {name}\n\n{table([row for row in rows if row['model'] == name])}" for name in names]
    tools = ", ".join(f"{name} {version}" for name, version in document["tools"].items())
    return HEAD.format(recordings=document["recordings"], tools=tools) + "\n\n".join(blocks) + "\n"


HEAD = """# Parity

What every converter makes of every architecture, beside PyTorch: {recordings} real recordings, each
through the whole streaming line, chunk by chunk with the state carried. max and mean are of |Δ log_prob|
over all frames and tokens; texts is the share of recordings whose text is the very same. Architectures
have the weights they start from and a sharp last layer, so that their texts are long and meaningless:
the hardest case for a comparison. The shipped checkpoints are trained. What runs in sherpa-onnx is
compared in [sherpa_onnx.md](sherpa_onnx.md).

    python benchmarks/parity.py --eval dev.jsonl --calibration train.jsonl --markdown docs/parity.md

made this page, with {tools}.

"""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Figures first, then the gaps with their reasons."""
    lines = [
        "| artifact | run by | KiB | max | mean | frames agreeing | texts |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "gap" not in row:
            lines.append(
                f"| {row['backend']}/{row['precision']} | {row['run_by']} | {row['bytes'] / 1024:.0f} | "
                f"{row['max_abs']:.1e} | {row['mean_abs']:.1e} | {row['argmax_agreement']:.2%} | "
                f"{row['text_identical']:.0%} |"
            )
    gaps = [f"- {row['backend']}/{row['precision']}: {row['gap']}" for row in rows if "gap" in row]
    return "\n".join([*lines, *([""] if gaps else []), *gaps])


if __name__ == "__main__":
    main()
