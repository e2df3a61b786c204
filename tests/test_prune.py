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
from edge_speech_tools.prune import changes, depth, importance, masks, width
from edge_speech_tools.prune.ratio import Config, aim_of, fields_of, parameters_of, prune_to

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
SHAPES: dict[str, dict[str, Any]] = {
    "conformer": {"d_model": 32, "num_layers": 4, "num_heads": 4, "feed_forward_dim": 48, "conv_kernel": 5},
    "transformer": {"d_model": 32, "num_layers": 4, "num_heads": 4, "feed_forward_dim": 48},
    "emformer": {
        "d_model": 32,
        "num_layers": 4,
        "num_heads": 4,
        "feed_forward_dim": 48,
        "right_context_frames": 4,
        "memory_size": 2,
    },
    "tcn": {"d_model": 32, "num_layers": 4, "dilation_cycle": 2},
    "crnn": {"channels": 16, "hidden_dim": 32, "num_layers": 3},
    "crnn lstm": {"channels": 16, "hidden_dim": 32, "num_layers": 3, "cell": "lstm"},
    "dnn": {"hidden_dim": 48, "num_layers": 4},
}
# Those whose layers each stand beside a residual connection.
DEEP = ("conformer", "emformer", "tcn", "transformer")


def loaded(variant: str, **settings: Any) -> LoadedModel:
    torch.manual_seed(3)
    architecture = variant.split(maxsplit=1)[0]
    model = models.build(architecture, {"num_features": 16, "vocab_size": 7, **SHAPES[variant], **settings})
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    model.eval()
    config = models.config_of(model)
    return LoadedModel(
        model, ["<blk>", *"abcdef"], {"type": "fbank", "num_mel_bins": 16}, architecture, config
    )


CHANNELS = [(v, field) for v in SHAPES for field in loaded(v).model.channels()]  # type: ignore[operator]
FIELDS = [(v, field) for v in SHAPES for field in fields_of(loaded(v))]


@pytest.fixture
def features() -> list[FloatArray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((n, 16)).astype(np.float32) for n in (96, 64)]


def log_probs(model: Any, features: list[FloatArray]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.parallel(torch.from_numpy(each)[None])[0] for each in features])


def smaller(dense: LoadedModel, field: str, features: list[FloatArray]) -> LoadedModel:
    """One layer or a third of the channels less."""
    count = fields_of(dense)[field]
    if field == "num_layers":
        return depth.run(dense, features, depth.Config(count - 1))
    return width.run(dense, features, width.Config(field, count - max(1, count // 3), "magnitude"))


@torch.no_grad()
def silence(dense: LoadedModel, setting: str, period: int) -> int:
    """Zero every `period`th channel of every group, so that it does nothing; how many there are in each."""
    for number, (group, count) in enumerate(width.counted_groups(dense, setting)):
        silent = torch.arange(number % period, count, period)[: count // period]
        for axis in group.axes:
            tensor = dense.model.state_dict()[axis.parameter]
            tensor.index_fill_(axis.axis, axis.places(count)[silent].flatten(), 0.0)
    return count // period


# A layer norm over these settings gives something else without the channels, whatever they hold.
NORMED = [c for c in CHANNELS if c[1] == "d_model" or (c[1] == "hidden_dim" and c[0] != "tcn")]


@pytest.mark.parametrize(("variant", "field"), [c for c in CHANNELS if c not in NORMED])
@pytest.mark.parametrize("measure", importance.MEASURES)
def test_channels_that_do_nothing_are_those_that_go(
    variant: str, field: str, measure: str, features: list[FloatArray]
) -> None:
    dense = loaded(variant)
    gone = silence(dense, field, 4 if field == "num_heads" else 3)
    left = fields_of(dense)[field] - gone
    pruned = width.run(dense, features, width.Config(field, left, measure))
    assert parameters_of(pruned) < parameters_of(dense)
    torch.testing.assert_close(log_probs(pruned.model, features), log_probs(dense.model, features))


@pytest.mark.parametrize(("variant", "field"), NORMED)
@pytest.mark.parametrize("measure", importance.MEASURES)
def test_units_that_do_nothing_have_the_least_importance(
    variant: str, field: str, measure: str, features: list[FloatArray]
) -> None:
    dense = loaded(variant)
    silence(dense, field, 3)
    counted = width.counted_groups(dense, field)
    for number, score in enumerate(importance.channels(dense.model, counted, features, measure)):
        silent = torch.arange(number % 3, len(score), 3)[: len(score) // 3]
        others = [i for i in range(len(score)) if i not in silent]
        assert score[silent].max() <= score[others].min()
        assert score[silent].max() < score[others].median()


# The last product of each branch beside a residual connection.
BRANCH_ENDS = ("contract", "attention.output", "out_proj", "pos_ff.4")


@pytest.mark.parametrize("variant", DEEP)
def test_a_layer_that_does_nothing_is_the_one_that_goes(variant: str, features: list[FloatArray]) -> None:
    alike = {"tcn": {"dilation_cycle": 1}, "emformer": {"memory_size": 0}}
    dense = loaded(variant, **alike.get(variant, {}))
    ends = [p for n, p in dense.model.named_parameters() if ".2." in n and any(e in n for e in BRANCH_ENDS)]
    assert ends
    with torch.no_grad():
        for parameter in ends:
            parameter.zero_()
    pruned = depth.run(dense, features, depth.Config(3))
    assert pruned.config["num_layers"] == 3
    assert pruned.metrics[depth.KEPT] == [0, 1, 3]
    assert len(pruned.model.spec.state) < len(dense.model.spec.state)  # type: ignore[union-attr]
    torch.testing.assert_close(
        log_probs(pruned.model, features), log_probs(dense.model, features), atol=1e-3, rtol=1e-3
    )


def test_a_cycle_of_dilations_goes_as_one(features: list[FloatArray]) -> None:
    dense = loaded("tcn", num_layers=5)
    for gone in ((1, 2), (4,)):
        pruned = depth.without(dense, gone)
        left = [i for i in range(5) if i not in gone]
        for now, before in enumerate(left):
            one, other = (m.model.get_submodule(f"layers.{i}") for m, i in ((pruned, now), (dense, before)))
            assert one.depthwise.dilation == other.depthwise.dilation  # type: ignore[union-attr]
            assert torch.equal(one.expand.weight, other.expand.weight)  # type: ignore[union-attr, arg-type]
    pruned = depth.run(dense, features, depth.Config(2))
    assert pruned.config["num_layers"] == 2
    assert len(pruned.metrics[depth.KEPT]) == 2


@pytest.mark.parametrize(("variant", "field"), FIELDS)
def test_what_is_left_streams_in_smaller_shapes(
    variant: str, field: str, features: list[FloatArray], tmp_path: Path
) -> None:
    dense = loaded(variant)
    pruned = smaller(dense, field, features)
    spec = pruned.model.spec  # type: ignore[union-attr]
    sizes = [sum(int(np.prod(s.shape)) for s in m.model.spec.state) for m in (dense, pruned)]  # type: ignore[union-attr]
    carried = {"conv_channels", "d_model", "head_dim", "num_heads", "channels", "num_layers"}
    carried |= {"hidden_dim"} if pruned.architecture == "crnn" else set()
    carried -= {"num_layers"} if pruned.architecture == "dnn" else set()
    assert (sizes[1] < sizes[0]) == (field in carried)
    state, rows = pruned.model.initial_state(1), []  # type: ignore[operator]
    assert [tuple(t.shape) for t in state] == [s.shape for s in spec.state]
    heard = torch.from_numpy(np.concatenate([features[0], np.full((8, 16), spec.padding_value, np.float32)]))
    with torch.inference_mode():
        for start in range(0, 96, spec.chunk_frames):
            out, *state = pruned.model(heard[None, start : start + spec.window_frames], *state)
            rows.append(out[0])
    assert [tuple(t.shape) for t in state] == [s.shape for s in spec.state]
    torch.testing.assert_close(torch.cat(rows), log_probs(pruned.model, features[:1]), atol=1e-4, rtol=1e-4)
    save_model(tmp_path / "pruned.pt", pruned)
    again = load_model(tmp_path / "pruned.pt")
    torch.testing.assert_close(log_probs(again.model, features), log_probs(pruned.model, features))


@pytest.mark.parametrize("variant", SHAPES)
def test_a_model_pruned_everywhere_exports(variant: str, features: list[FloatArray], tmp_path: Path) -> None:
    dense = pruned = loaded(variant)
    for field in fields_of(dense):
        pruned = smaller(pruned, field, features)
    assert set(changes.settings(dense, pruned)) == set(fields_of(dense))
    spec = pruned.model.spec  # type: ignore[union-attr]
    path = streaming_onnx.run(Source(pruned.model, spec, tmp_path)).path
    session = onnxruntime.InferenceSession(str(path))
    feed = {s.name: np.zeros(s.shape, s.dtype) for s in spec.state}
    window = features[0][None, : spec.window_frames]
    got = session.run(["log_probs"], {"features": window, **feed})[0]
    with torch.inference_mode():
        want = pruned.model(torch.from_numpy(window), *pruned.model.initial_state(1))[0]  # type: ignore[operator]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


@pytest.mark.parametrize("variant", SHAPES)
@pytest.mark.parametrize("every", [False, True])
def test_the_ratio_is_reached_on_the_tile(variant: str, every: bool, features: list[FloatArray]) -> None:
    dense = loaded(variant)
    fields = tuple(fields_of(dense)) if every else ()
    pruned = prune_to(dense, 0.4, features, Config(fields))
    reached = 1 - parameters_of(pruned) / parameters_of(dense)
    assert 0.4 <= reached < 0.55
    changed = changes.settings(dense, pruned)
    assert changed
    assert all(now % 8 == 0 for name, (_, now) in changed.items() if name not in ("num_layers", "num_heads"))


@pytest.mark.parametrize("example", ["digits", "english_small", "wake_word"])
def test_a_checkpoint_from_before_builds_the_same_model(example: str) -> None:
    """Its config has none of the newer settings, and its weights fit."""
    old = load_model(DIGITS.parent / example / "model.pt")
    assert not set(old.config) & set(old.model.config.derived())
    now = models.build(old.architecture, width.settings_of(old))
    assert {n: t.shape for n, t in now.state_dict().items()} == {
        n: t.shape for n, t in old.model.state_dict().items()
    }


def test_the_table_names_layers_as_they_were(features: list[FloatArray]) -> None:
    dense = loaded("transformer")
    pruned = smaller(depth.without(dense, (1,)), "feed_forward_dim", features)
    rows = {row["weight"]: row["after"] for row in changes.of_weights(dense, pruned)}
    assert rows["layers.1.feed_forward.expand.weight"] is None
    assert rows["layers.3.feed_forward.expand.weight"] == [32, 32]
    assert "layers.3.attention.query.weight" not in rows
    assert rows["layers.1.attention.query.weight"] is None


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
        (1.0, "num_layers", 8, "between 0 and 1"),
        (0.4, "dropout", 8, "num_layers, d_model, feed_forward_dim, num_heads, head_dim, conv_channels can"),
        (0.9, "feed_forward_dim", 8, "not 90%"),
        (0.4, "feed_forward_dim", 0, "the tile is 0"),
        (0.1, "num_layers", 8, "0% of the parameters"),
        (0.95, "num_layers", 8, "not 95%"),
    ],
)
def test_aims_that_cannot_be_are_refused(ratio: float, fields: str, tile: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        aim_of(loaded("conformer"), ratio, Config((fields,), tile=tile))


def test_english_small_loses_layers_and_channels() -> None:
    """What was found to cost least, and is trained: layers for two thirds of what goes."""
    dense = load_model(DIGITS.parent / "english_small" / "model.pt")
    aim = aim_of(dense, 0.4)
    assert (aim.layers, aim.fields) == (6, ("feed_forward_dim",))


def test_layers_that_the_others_need_are_refused() -> None:
    with pytest.raises(InputError, match="'num_layers' of a crnn cannot be pruned"):
        aim_of(loaded("crnn", num_layers=1), 0.4, Config(("num_layers",)))
    with pytest.raises(InputError, match="no layer of this crnn"):
        depth.stack_of(loaded("crnn", num_layers=1))


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
    assert "gave NaN" in capsys.readouterr().err
