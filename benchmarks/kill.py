"""Kill a training run ten times with SIGKILL, at random steps; does it end where an uninterrupted one does?

    python benchmarks/kill.py RECIPE [--set KEY=VALUE ...] [--kills 10] [--seed N] [-o FILE]

Prints JSON: the steps at which it was killed, the final losses of both runs, and whether all weights and all
lines of the log (less the times) are the same, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from edge_speech.training.recipe import read_recipe


def train(args: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Start or resume the run in `folder`, a line in its log for every step."""
    command = [sys.executable, "-m", "edge_speech", "train", str(args.recipe), "-o", str(folder), "--quiet"]
    for setting in (*args.set, "run.log_every=1"):
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def last_step(folder: Path) -> int:
    """The step of the last whole line of the log."""
    log = folder / "log.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def kill_at(args: argparse.Namespace, folder: Path, step: int, rng: random.Random) -> int:
    """Run until `step` is in the log and a moment longer; the last step that was then in the log."""
    process = train(args, folder)
    while process.poll() is None and last_step(folder) < step:
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 0.3))  # anywhere in a step, the log or a checkpoint
    if process.poll() is not None:
        sys.exit(f"the run ended by itself with {process.returncode} before step {step}; train for longer")
    process.kill()
    process.wait()
    return last_step(folder)


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights of model.pt, and the log without its times."""
    weights = torch.load(folder / "model.pt", weights_only=True)["state_dict"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return weights, [{k: v for k, v in line.items() if k != "elapsed_s"} for line in lines]


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both runs and how they compare."""
    rng = random.Random(args.seed)
    steps = read_recipe(args.recipe, args.set).optimizer.steps
    if train(args, folder / "straight").wait():
        sys.exit("the uninterrupted run failed")
    killed = sorted(rng.sample(range(1, steps), args.kills))
    killed = [kill_at(args, folder / "killed", step, rng) for step in killed]
    if train(args, folder / "killed").wait():
        sys.exit("the resumed run failed")
    weights, log = outcome(folder / "straight")
    other_weights, other_log = outcome(folder / "killed")
    return {
        "recipe": args.recipe.name,
        "steps": steps,
        "killed_after_step": killed,
        "final_loss": [log[-1]["loss"], other_log[-1]["loss"]],
        "same_log": log == other_log,
        "same_weights": all(torch.equal(value, other_weights[name]) for name, value in weights.items()),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(run(args, Path(folder)), indent=1) + "\n"
    print(text, end="")
    if args.output:
        args.output.write_text(text)


if __name__ == "__main__":
    main()
