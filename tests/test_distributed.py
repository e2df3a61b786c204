"""Several processes under torchrun do what one does: the same losses, weights, error rates and JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_speech import cli
from edge_speech.errors import InputError
from edge_speech.features import FbankConfig
from edge_speech.group import ALONE, Group, group_of_environment, joined
from edge_speech.training import models
from edge_speech.training import train as training
from edge_speech.training.checkpoint import load_model
from edge_speech.training.data import TrainingSet, evaluation_set
from edge_speech.training.recipe import Recipe, read_recipe
from edge_speech.training.tokens import Tokens
from edge_speech.training.train import Trainer
from tiny import speech_like, write_bundle, write_wav

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PRELOADED = ["edge_speech.training.train", "pytest", "torch._dynamo"]
# A transformer has no batch norm; without dropout the model draws nothing.
RECIPE = """
architecture = "transformer"
data.train = [{manifest = "clips.jsonl", compose = {max_count = 2}}]
data.dev = [{manifest = "clips.jsonl"}]
data.vocabulary = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
model = {d_model = 16, num_layers = 1, num_heads = 2, feed_forward_dim = 32, dropout = 0.0}
frontend = {type = "fbank", sample_rate = 8000, num_mel_bins = 23}
optimizer = {steps = 6, batch_size = 3, accumulate = 2, warmup_steps = 2, learning_rate = 1e-2}
run = {workers = 0, log_every = 1, evaluate_every = 3, checkpoint_every = 2, tracking = [], device = "cpu"}
"""
# Ctrl-C reaches torchrun, which tells its processes.
INTERRUPTED = """
import os, signal, time
from edge_speech.training.train import Trainer
average = Trainer._update_average
def interrupted(self):
    if self.step == 3 and self.group.rank == 1:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep( (self.step >= 3))
    average(self)
Trainer._update_average = interrupted
"""
# Several utterances in a step and, now and then, one alone: then a process has no row.
FEW_ROWS = ("optimizer.batch_s=3", "optimizer.accumulate=1")
LOST = [1, -signal.SIGKILL], "edge-speech: another process of this run was killed; start all of them again\n"


@pytest.fixture
def recipe_file(tmp_path: Path, digits: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(f"data.root = '{digits}'\n{RECIPE}")
    return path


def torchrun(folder: Path, *words: str, code: str = "") -> tuple[int, bytes, list[str]]:
    """`edge-speech WORDS` in two processes, after `code`; exit code, stdout and their lines on stderr."""
    program = folder / "program.py"
    program.write_text(f"import sys\n{code}\nfrom edge_speech.cli import main\nsys.exit(main())\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", program]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *words], cwd=folder, env=env, capture_output=True, timeout=300, check=False
    )
    err = done.stderr.decode()
    assert 'program.py", line' not in err  # no traceback but torchrun's own
    return done.returncode, done.stdout, re.findall("edge-speech: .*|at step .*", err)


def one_of_two(
    rank: int, port: int, words: list[str], folder: Path, patch: Callable[[], None] | None
) -> None:
    """What torchrun starts, but from a process that has imported everything."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    os.chdir(folder)
    os.dup2(os.open(f"stderr{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if patch is not None:
        patch()
    sys.exit(cli.main(words))


def two(folder: Path, *words: str, patch: Callable[[], None] | None = None) -> tuple[list[int | None], str]:
    """Exit codes of two processes, and what both said."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    arguments = (store.port, [*words, "--quiet"], folder, patch)
    processes = [context.Process(target=one_of_two, args=(rank, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    said = "".join((folder / f"stderr{rank}").read_text() for rank in (0, 1))
    return [process.exitcode for process in processes], said


def setting(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "model.pt").model.state_dict()


def assert_like(alone: Path, together: Path) -> None:
    """The same run, within the rounding of sums in another order."""
    for one, other in zip(log_of(alone), log_of(together), strict=True):
        assert other == {name: pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in one.items()}
    weights = weights_of(alone)
    for name, value in weights_of(together).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4, msg=name)


def test_torchrun_trains_as_one_process_through_an_interrupt(recipe_file: Path, tmp_path: Path) -> None:
    training.train(read_recipe(recipe_file, []), tmp_path / "alone", quiet=True)
    words = "train", "recipe.toml", "-o", "together"
    code, out, said = torchrun(tmp_path, *words, code=INTERRUPTED)
    assert (code, out) == (1, b"")
    step = torch.load(tmp_path / "together" / "checkpoint.pt", weights_only=True)["step"]
    assert step in (3, 4)
    goes_on = f"at step {step}; the same command goes on from together"
    assert sorted(said) == [goes_on, "edge-speech: interrupted", "edge-speech: interrupted"]
    code, out, said = torchrun(tmp_path, *words)
    assert (code, out, said) == (0, b"together/model.pt\n", [])  # one of them says it
    assert_like(tmp_path / "alone", tmp_path / "together")
    assert log_of(tmp_path / "alone")[-1]["dev_wer"] == log_of(tmp_path / "together")[-1]["dev_wer"]
    assert not list((tmp_path / "together").glob(".*"))


def test_a_process_without_a_row_takes_part(recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file, [*FEW_ROWS])
    assert 0.0 in {part.weight for step in range(6) for part in training_set(recipe, Group(1, 2)).parts(step)}
    training.train(recipe, tmp_path / "alone", quiet=True)
    codes, said = two(tmp_path, "train", "recipe.toml", "-o", "together", *setting(*FEW_ROWS))
    assert (codes, said) == ([0, 0], "")
    assert_like(tmp_path / "alone", tmp_path / "together")


def test_processes_draw_the_same_networks(recipe_file: Path, tmp_path: Path) -> None:
    words = [
        "train",
        str(recipe_file),
        *setting("supernet.feed_forward_dim=[8, 16, 32]", "optimizer.steps=3"),
    ]
    assert cli.main([*words, "-o", str(tmp_path / "alone"), "--quiet"]) == 0
    assert two(tmp_path, *words, "-o", "together") == ([0, 0], "")
    assert_like(tmp_path / "alone", tmp_path / "together")


def die_in_step_5() -> None:
    """In one of the two, after the checkpoint of step 4; the other is left without it, and is ended."""
    update = Trainer._update

    def dying(self: Trainer, parts: Any) -> tuple[float, float]:
        if self.step == 4 and self.group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, parts)

    Trainer._update = dying  # type: ignore[method-assign]


def test_killed_processes_go_on_exactly(recipe_file: Path, tmp_path: Path) -> None:
    """With batch norm and with dropout, which draws other numbers in each process."""
    settings = ["architecture=conformer", "model.dropout=0.2", "optimizer.early_stopping=9"]
    for folder, patch in (("straight", None), ("resumed", die_in_step_5), ("resumed", None)):
        ended = two(tmp_path, "train", "recipe.toml", "-o", folder, *setting(*settings), patch=patch)
        assert ended == (LOST if patch else ([0, 0], ""))
    assert log_of(tmp_path / "straight") == log_of(tmp_path / "resumed")
    straight = weights_of(tmp_path / "straight")
    assert all(torch.equal(value, straight[name]) for name, value in weights_of(tmp_path / "resumed").items())
    saved = torch.load(tmp_path / "straight" / "checkpoint.pt", weights_only=True)
    assert not torch.equal(*(state["cpu"] for state in saved["random"]))
    recipe = read_recipe(recipe_file, settings)
    alone = Trainer(recipe, tmp_path / "straight")  # fewer go on too, with new random numbers
    assert alone.step == 6


def break_one() -> None:
    read = training.Trainer._update

    def failing(self: Trainer, parts: Any) -> tuple[float, float]:
        if self.step == 2 and self.group.rank == 1:
            raise InputError("a recording is gone")
        return read(self, parts)

    Trainer._update = failing  # type: ignore[method-assign]


def test_one_line_says_why_all_ended(recipe_file: Path, tmp_path: Path) -> None:
    codes, said = two(tmp_path, "train", "recipe.toml", "-o", "run", patch=break_one)
    assert (sorted(map(abs, codes)), said) == ([1, 2], "edge-speech: a recording is gone\n")
    codes, said = two(tmp_path, "train", "recipe.toml", "-o", "run", *setting("model.size=tiny"))
    assert sorted(codes) == [1, 2]
    assert said.count("\n") == 1
    assert "unknown size 'tiny'" in said


def training_set(recipe: Recipe, group: Group) -> TrainingSet:
    return TrainingSet(
        recipe, Tokens.build("words", [], DIGITS), FbankConfig(sample_rate=8000, num_mel_bins=23), group
    )


@pytest.mark.parametrize("settings", [(), FEW_ROWS])
def test_rows_are_shared_out(recipe_file: Path, settings: tuple[str, ...]) -> None:
    recipe = read_recipe(recipe_file, [*settings])
    sets = [training_set(recipe, Group(rank, 3)) for rank in range(3)]
    for step in range(6):
        whole = training_set(recipe, ALONE)[step]
        shares = [items.parts(step) for items in sets]
        assert len({len(parts) for parts in shares}) == 1
        assert sum(part.weight for parts in shares for part in parts) == pytest.approx(1)
        weighty = [part for parts in shares for part in parts if part.weight]
        lengths = sorted(length for part in weighty for length in part.feature_lengths.tolist())
        assert lengths == sorted(whole.feature_lengths.tolist())
        for part in weighty:
            assert part.weight * len(whole.feature_lengths) == pytest.approx(len(part.feature_lengths))


def test_dev_utterances_are_shared_out(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file, ['data.dev=[{manifest = "clips.jsonl", compose = {max_count = 2}}]'])
    of = recipe, Tokens.build("words", [], DIGITS), FbankConfig(sample_rate=8000, num_mel_bins=23)
    whole = evaluation_set(*of)
    shares = [evaluation_set(*of, Group(rank, 2)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [3, 2]
    for (features, text), (expected, said) in zip(joined(shares), whole, strict=True):
        assert torch.equal(features, expected)
        assert text == said


def test_torchrun_evaluates_as_one_process(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    samples = (speech_like(2) * 32767).astype(np.int16)
    lines = []
    for i in range(5):
        write_wav(tmp_path / f"{i}.wav", samples[i * 4000 :])
        lines.append({"audio_filepath": f"{i}.wav", "text": "two one four", "speaker": i % 2})
    (tmp_path / "2.wav").write_bytes(b"GIF89a" * 100)
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = "eval", "bundle", "m.jsonl", "--json", "--details", "--per-speaker", "--errors", "2"
    command = [sys.executable, "-m", "edge_speech", *asked, "--keep-going"]
    alone = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    code, out, _ = torchrun(tmp_path, *asked, "--keep-going")
    together = json.loads(out)
    assert code == 0
    assert together.pop("rtf") > 0
    assert alone.pop("rtf") > 0
    assert list(together.items()) == list(alone.items())
    assert (together["utterances"], together["left_out"][0]["audio_filepath"]) == (4, "2.wav")
    code, out, said = torchrun(tmp_path, *asked)
    assert (code, out, len(said)) == (1, b"", 1)
    assert said[0].startswith("edge-speech: 2.wav: not readable audio")


@pytest.mark.parametrize(
    ("rank", "size", "message"), [("x", "2", "must be numbers"), ("2", "2", "RANK is 2 of WORLD_SIZE 2")]
)
def test_impossible_groups(rank: str, size: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(InputError, match=message):
        group_of_environment()


@pytest.mark.parametrize("architecture", models.available())
def test_every_parameter_has_a_gradient(recipe_file: Path, tmp_path: Path, architecture: str) -> None:
    """The processes wait for each other's gradients of all parameters."""
    model = 'model={size="small"}'
    trainer = Trainer(read_recipe(recipe_file, [f"architecture={architecture}", model]), tmp_path / "run")
    trainer._update(trainer.training_set.parts(0))
    assert not [name for name, value in trainer.model.named_parameters() if value.grad is None]


def test_several_processes_need_torchrun(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["train", str(recipe_file), "-o", "run"]) == 2
    assert "RANK expected, but not set; start with torchrun" in capsys.readouterr().err
