"""Pruning: what is taken out is really gone, and what is left is what was there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edge_speech.cli import main
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.recipe import read_recipe
from edge_speech.training.train import train
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.passes import Source
from edge_speech_tools.prune import depth, importance, masks, width
from edge_speech_tools.prune.command import aim_of, parameters_of

# Those whose layers are alike and have feed-forward channels.
DEEP = ("conformer", "emformer", "transformer")
DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def loaded(architecture: str, **settings: Any) -> LoadedModel:
    torch.manual_seed(3)
    shape = {"num_features": 16, "vocab_size": 7, "num_layers": 4, "feed_forward_dim": 48, **settings}
    model = models.build(architecture, {"d_model": 32, "num_heads": 4, **shape})
    model.eval()
    config = models.config_of(model)
    return LoadedModel(model, ["<blk>", *"abcdef"], {"type": "fbank"}, architecture, config)


@pytest.fixture
def features() -> list[FloatArray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((n, 16)).astype(np.float32) for n in (96, 64)]


def log_probs(model: Any, features: list[FloatArray]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.parallel(torch.from_numpy(each)[None])[0] for each in features])


@pytest.mark.parametrize("architecture", DEEP)
@pytest.mark.parametrize("measure", importance.MEASURES)
def test_channels_that_do_nothing_are_those_that_go(
    architecture: str, measure: str, features: list[FloatArray]
) -> None:
    dense = loaded(architecture)
    for number, axes in enumerate(width.blocks_of(dense).values()):
        for one in axes:
            parameter = dense.model.get_parameter(one.parameter)
            with torch.no_grad():
                parameter.index_fill_(one.axis, torch.arange(number % 3, 48, 3), 0.0)
    pruned = width.run(dense, features, width.Config(32, measure))
    assert parameters_of(pruned) < parameters_of(dense)
    torch.testing.assert_close(log_probs(pruned.model, features), log_probs(dense.model, features))


# The last product of each branch beside a residual connection.
BRANCH_ENDS = ("contract", "attention.output", "out_proj", "pos_ff.4")


@pytest.mark.parametrize("architecture", DEEP)
def test_a_layer_that_does_nothing_is_the_one_that_goes(
    architecture: str, features: list[FloatArray]
) -> None:
    dense = loaded(architecture)
    ends = [p for n, p in dense.model.named_parameters() if ".2." in n and any(e in n for e in BRANCH_ENDS)]
    assert ends
    with torch.no_grad():
        for parameter in ends:
            parameter.zero_()
    pruned = depth.run(dense, features, depth.Config(3))
    assert pruned.config["num_layers"] == 3
    assert len(pruned.model.spec.state) < len(dense.model.spec.state)  # type: ignore[union-attr]
    torch.testing.assert_close(
        log_probs(pruned.model, features), log_probs(dense.model, features), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("architecture", DEEP)
def test_a_pruned_model_streams_and_exports(
    architecture: str, features: list[FloatArray], tmp_path: Path
) -> None:
    dense = loaded(architecture)
    aim = aim_of(dense, 0.4, (depth.FIELD, width.FIELD), 8)
    pruned = width.run(
        depth.run(dense, features, depth.Config(aim.layers)), features, width.Config(aim.width)
    )
    assert parameters_of(pruned) <= 0.6 * parameters_of(dense)
    assert pruned.config["feed_forward_dim"] % 8 == 0
    spec = pruned.model.spec  # type: ignore[union-attr]
    path = streaming_onnx.run(Source(pruned.model, spec, tmp_path)).path
    session = onnxruntime.InferenceSession(str(path))
    feed = {s.name: np.zeros(s.shape, s.dtype) for s in spec.state}
    window = features[0][None, : spec.window_frames]
    got = session.run(["log_probs"], {"features": window, **feed})[0]
    with torch.inference_mode():
        want = pruned.model(torch.from_numpy(window), *pruned.model.initial_state(1))[0]  # type: ignore[operator]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_two_of_four_weights_stay() -> None:
    model = masks.run(loaded("conformer"), masks.Config("2:4")).model
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            assert ((layer.weight.reshape(len(layer.weight), -1, 4) != 0).sum(2) == 2).all()


def test_a_fraction_of_all_weights_goes() -> None:
    model = masks.run(loaded("conformer"), masks.Config("0.5")).model
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert zeros / sum(w.numel() for w in weights) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("sparsity", ["4:2", "0:4", "none", "1.5", "nan"])
def test_sparsity_that_cannot_be_is_refused(sparsity: str) -> None:
    with pytest.raises(InputError, match=r"2:4"):
        masks.run(loaded("conformer"), masks.Config(sparsity))


@pytest.mark.parametrize(
    ("ratio", "fields", "tile", "named"),
    [
        (1.0, depth.FIELD, 8, "between 0 and 1"),
        (0.4, "num_heads", 8, "num_layers, feed_forward_dim can"),
        (0.9, width.FIELD, 8, "not 90%"),
        (0.4, width.FIELD, 0, "the tile is 0"),
        (0.1, depth.FIELD, 8, "0% of the parameters"),
    ],
)
def test_aims_that_cannot_be_are_refused(ratio: float, fields: str, tile: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        aim_of(loaded("conformer"), ratio, (fields,), tile)


def test_layers_at_their_own_places_are_refused() -> None:
    model = models.build("tcn", {"num_features": 16, "vocab_size": 7})
    tcn = LoadedModel(model, ["<blk>", *"abcdef"], {}, "tcn", models.config_of(model))
    with pytest.raises(InputError, match="not alike"):
        aim_of(tcn, 0.4, (depth.FIELD,), 8)


def test_the_command_prunes_and_says_what_became(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "smaller.pt"
    arguments = [str(DIGITS / "model.pt"), "-o", str(output), "--ratio", "0.4", "--quiet", "--json"]
    assert main(["prune", *arguments, "--calibration", str(DIGITS / "clips.jsonl")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"] == parameters_of(load_model(output))
    assert document["parameters"] <= 0.6 * document["dense_parameters"]
    assert set(document["changes"]) <= {"num_layers", "feed_forward_dim"}
    assert main(["prune", *arguments, "--calibration", str(DIGITS / "clips.jsonl")]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["prune", *arguments, "--force"]) == 2
    assert "--calibration" in capsys.readouterr().err


RECIPE = """
architecture = "conformer"
model = {d_model = 16, num_layers = 1, num_heads = 2, feed_forward_dim = 32}
frontend = {type = "fbank", sample_rate = 8000, num_mel_bins = 23}
[data]
units = "characters"
[[data.train]]
manifest = "clips.jsonl"
[optimizer]
steps = 2
batch_size = 2
warmup_steps = 1
[run]
workers = 0
"""


def test_fine_tuning_goes_on_from_what_is_left(tmp_path: Path) -> None:
    """The trained model has the pruned shape, and a second run takes what the first has made."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    root = f"data.root={DIGITS}"
    dense = train(read_recipe(recipe, [root]), tmp_path / "dense", quiet=True)
    output = tmp_path / "smaller.pt"
    arguments = ["prune", str(dense), "-o", str(output), "--ratio", "0.1", "--fields", "feed_forward_dim"]
    arguments += [
        "--tile",
        "4",
        "--importance",
        "magnitude",
        "--fine-tune",
        str(recipe),
        "--quiet",
        "--set",
        root,
    ]
    assert main([*arguments, "--iterations", "2"]) == 0
    first = load_model(output)
    assert first.config["feed_forward_dim"] < load_model(dense).config["feed_forward_dim"]
    assert (tmp_path / "smaller.prune" / "2" / "model.pt").exists()
    output.unlink()
    assert main([*arguments, "--iterations", "2"]) == 0
    for name, value in load_model(output).model.state_dict().items():
        torch.testing.assert_close(value, first.model.state_dict()[name], rtol=0, atol=0)
    output.unlink()
    assert main([*arguments, "--iterations", "1"]) == 2  # what lies there was pruned by another ratio


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "nothing to do"),
        (["--ratio", "0.4", "--set", "optimizer.steps=3"], "--fine-tune"),
        (["--sparsity", "2:4", "--fine-tune", "recipe.toml"], "--ratio"),
        (["--ratio", "0.4", "--fine-tune", "recipe.toml", "--iterations", "0"], "at least 1"),
        (["--sparsity", "2:4", "-o", "nowhere/smaller.pt"], "is no folder"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "smaller.pt"
    assert main(["prune", str(DIGITS / "model.pt"), "-o", str(output), *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_a_model_of_nan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(DIGITS / "model.pt")
    with torch.no_grad():
        next(model.model.parameters()).fill_(float("nan"))
    save_model(tmp_path / "nan.pt", model)
    arguments = ["-o", str(tmp_path / "o.pt"), "--ratio", "0.3", "--calibration", str(DIGITS / "clips.jsonl")]
    assert main(["prune", str(tmp_path / "nan.pt"), *arguments]) == 2
    assert "no log-probabilities" in capsys.readouterr().err
