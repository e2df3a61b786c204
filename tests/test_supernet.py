"""Networks that share weights: what a small one computes and learns, and what a file may say of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.cli import main
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.models import Model, StreamingModel
from edge_speech.training.objectives.ctc import Ctc, ctc_loss
from edge_speech.training.recipe import Quantization, Recipe, read_recipe
from edge_speech.training.supernet import Sandwich, _Network, drawn, read_changes, subnetwork
from edge_speech.training.train import Trainer, train
from edge_speech.training.weight_sharing import (
    FIELDS,
    WIDTHS,
    Supernet,
    check_choices,
    extract,
    kept_layers,
    outline,
    sort_channels,
)
from tiny_recipe import tiny_recipe

BINS, VOCABULARY, LAYERS = 20, 7, 5
# Of each setting a smaller value.
SMALLER = {"num_layers": 3, "feed_forward_dim": 40, "expansion": 1, "conv_kernel": 6, "kernel": 3}
NOT_ALIKE = ("crnn", "dnn", "tcn")
CHOICES = {"num_layers": [1, 2, 3], "feed_forward_dim": [8, 16, 32], "conv_kernel": [3, 15]}
SMALLEST = {"num_layers": 1, "feed_forward_dim": 8, "conv_kernel": 3}


def make(architecture: str) -> StreamingModel:
    """With statistics in its batch norms, as a trained model has."""
    torch.manual_seed(3)
    fields = {"num_features": BINS, "vocab_size": VOCABULARY, "dropout": 0.1, "num_layers": LAYERS}
    known = models.config_of(models.build(architecture, {}))
    if "d_model" in known:
        fields |= {"d_model": 32}
    if "feed_forward_dim" in known:
        fields |= {"feed_forward_dim": 64}
    model = models.build(architecture, {name: value for name, value in fields.items() if name in known})
    model.normalise([8.0] * BINS, [3.0] * BINS)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    assert isinstance(model, StreamingModel)
    return model.eval()  # type: ignore[return-value]


def speech(frames: int = 90) -> Tensor:
    return torch.randn(2, frames, BINS, generator=torch.Generator().manual_seed(5)) * 3 + 8


def fields_of(architecture: str) -> list[str]:
    known = models.config_of(models.build(architecture, {}))
    return [f for f in FIELDS if f in known and not (f == "num_layers" and architecture in NOT_ALIKE)]


EVERY = [(name, field) for name in models.available() for field in fields_of(name)]
STREAMING = [name for name in models.available() if fields_of(name)]


def in_large(model: Model, changes: dict[str, int], features: Tensor) -> Tensor:
    return _Network(model, outline(architecture_of(model), model, changes)).log_probs(model, features)


def architecture_of(model: Model) -> str:
    return type(model).__module__.rpartition(".")[2]


def smaller(architecture: str) -> dict[str, int]:
    return {field: SMALLER[field] for field in fields_of(architecture)}


@pytest.mark.parametrize(("architecture", "field"), [e for e in EVERY if e[1] != "num_layers"])
def test_channels_and_taps_left_out_are_as_good_as_zeros(architecture: str, field: str) -> None:
    model, features, value = make(architecture), speech(), SMALLER[field]
    with torch.no_grad():
        found = in_large(model, {field: value}, features)
        whole = models.config_of(model)[field]
        size = whole * 32 if field == "expansion" else whole
        touched = 0
        for name, layer in model.named_modules():
            if field in WIDTHS and isinstance(layer, nn.Linear) and layer.in_features == size:
                layer.weight[:, value * size // whole :] = 0
                touched += 1
            elif field not in WIDTHS and isinstance(layer, nn.Conv1d | nn.Conv2d):
                if layer.kernel_size[0] == whole and "subsampling" not in name:
                    layer.weight[:, :, : whole - value] = 0
                    touched += 1
        assert touched
        torch.testing.assert_close(found, model.parallel(features), rtol=0, atol=1e-5)


def test_a_conformer_built_by_hand_computes_the_same() -> None:
    model, features = make("conformer"), speech()
    small = models.build("conformer", {**models.config_of(model), **SMALLER_CONFORMER}).eval()
    with torch.no_grad():
        for name in ("subsampling", "output"):
            small.get_submodule(name).load_state_dict(model.get_submodule(name).state_dict())
        small.normalise([8.0] * BINS, [3.0] * BINS)
        for layer, kept in zip(small.layers, (0, 2, 4), strict=True):  # type: ignore[arg-type]
            state = dict(model.layers[kept].state_dict())  # type: ignore[index, operator, union-attr]
            for block in ("feed_forward1", "feed_forward2"):
                state[f"{block}.expand.weight"] = state[f"{block}.expand.weight"][:40]
                state[f"{block}.expand.bias"] = state[f"{block}.expand.bias"][:40]
                state[f"{block}.contract.weight"] = state[f"{block}.contract.weight"][:, :40]
            state["convolution.depthwise.weight"] = state["convolution.depthwise.weight"][:, :, -6:]
            layer.load_state_dict(state)
        expected = small.parallel(features)
        assert torch.equal(in_large(model, SMALLER_CONFORMER, features), expected)
        assert torch.equal(extract("conformer", model, SMALLER_CONFORMER).parallel(features), expected)


SMALLER_CONFORMER = {"num_layers": 3, "feed_forward_dim": 40, "conv_kernel": 6}


@pytest.mark.parametrize(
    ("count", "of", "kept"),
    [(3, 5, [0, 2, 4]), (1, 4, [0]), (8, 8, list(range(8))), (2, 8, [0, 7]), (6, 8, [0, 1, 3, 4, 6, 7])],
)
def test_layers_that_stay_are_evenly_spaced(count: int, of: int, kept: list[int]) -> None:
    assert kept_layers(count, of) == kept


def test_the_first_and_the_last_layer_stay_and_none_is_used_twice() -> None:
    for of in range(2, 65):
        for count in range(2, of + 1):
            kept = kept_layers(count, of)
            assert (kept[0], kept[-1]) == (0, of - 1)
            assert sorted(set(kept)) == kept
            assert len(kept) == count


@pytest.mark.parametrize("architecture", STREAMING)
def test_gradients_reach_what_is_shared_and_nothing_else(architecture: str) -> None:
    model, changes = make(architecture), smaller(architecture)
    in_large(model, changes, speech()).square().sum().backward()
    small = outline(architecture, model, changes)
    reached = 0
    for name, part in _Network(model, small).parts.items():
        parameter = dict(model.named_parameters()).get(part.name)
        if parameter is None:
            continue
        assert parameter.grad is not None, name
        outside = torch.ones_like(parameter, dtype=torch.bool)
        outside[part.where] = False
        assert parameter.grad[outside].count_nonzero() == 0, part.name
        reached += int(parameter.grad[part.where].count_nonzero())
    used = {part.name for part in _Network(model, small).parts.values()}
    assert all(p.grad is None for name, p in model.named_parameters() if name not in used)
    assert reached > 0.5 * sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("architecture", STREAMING)
def test_a_network_taken_out_is_the_one_that_was_trained_and_streams(architecture: str) -> None:
    model, changes, features = make(architecture), smaller(architecture), speech(70)
    small = extract(architecture, model, changes)
    assert isinstance(small, StreamingModel)
    assert not small.training
    with torch.no_grad():
        parallel = small.parallel(features)
        torch.testing.assert_close(parallel, in_large(model, changes, features), rtol=0, atol=0)
        torch.testing.assert_close(run_chunks(small, features), parallel, rtol=0, atol=1e-5)
        for parameter in model.parameters():  # copies, not views
            parameter.zero_()
        assert torch.equal(small.parallel(features), parallel)


def run_chunks(model: StreamingModel, features: Tensor) -> Tensor:
    spec = model.spec
    padding = -features.shape[1] % spec.chunk_frames + spec.right_context_frames
    padded = functional.pad(features, (0, 0, 0, padding), value=spec.padding_value)
    state, rows = model.initial_state(len(features)), []
    for start in range(0, padded.shape[1] - spec.right_context_frames, spec.chunk_frames):
        log_probs, *state = model(padded[:, start : start + spec.window_frames], *state)  # type: ignore[assignment]
        rows.append(log_probs)
    return torch.cat(rows, 1)[:, : -(-features.shape[1] // spec.subsampling_factor)]


def test_the_statistics_of_the_largest_are_those_of_all() -> None:
    """Training moves them by what the largest hears alone; a small network hears as it will on a device."""
    model, changes, features = make("tcn"), smaller("tcn"), speech()
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network = _Network(model, outline("tcn", model, changes))
    for module in network.parallel.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = network.log_probs(model, features)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    torch.testing.assert_close(found, extract("tcn", model, changes).parallel(features))


@pytest.mark.parametrize(("architecture", "field"), [e for e in EVERY if e[1] in WIDTHS])
def test_sorted_channels_compute_the_same_and_the_best_come_first(architecture: str, field: str) -> None:
    model, features = make(architecture), speech()
    whole, kept = models.config_of(model)[field], SMALLER[field]
    size = 32 * whole if field == "expansion" else whole
    used = 32 * kept if field == "expansion" else kept
    with torch.no_grad():
        for number, layer in enumerate(model.modules()):  # as many channels do something as will be kept
            if isinstance(layer, nn.Linear) and layer.in_features == size:
                dead = torch.randperm(size, generator=torch.Generator().manual_seed(number))[used:]
                layer.weight[:, dead] = 0
        before = model.parallel(features)
        assert not torch.allclose(in_large(model, {field: kept}, features), before, atol=1e-3)
        sort_channels(architecture, model, {field: [kept, whole]}, [features])
        torch.testing.assert_close(model.parallel(features), before, rtol=0, atol=1e-5)
        torch.testing.assert_close(in_large(model, {field: kept}, features), before, rtol=0, atol=1e-5)


@pytest.fixture
def recipe(digits: Path) -> Recipe:
    plain = tiny_recipe(digits, steps=3, num_layers=3, dropout=0.1)
    lists = {name: tuple(values) for name, values in CHOICES.items()}
    return replace(plain, supernet=Supernet(**lists))  # type: ignore[arg-type]


def test_the_loss_is_the_mean_of_three_networks(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path)
    objective, model, batch = trainer.objective, trainer.model.eval(), trainer.training_set[0]
    assert isinstance(objective, Sandwich)
    with torch.no_grad():
        found = float(objective(model, batch))
        lengths = (batch.feature_lengths + 3) // 4
        taught = model.parallel(batch.features)
        losses = [float(Ctc(trainer.tokens)(model, batch))]
        for changes in (SMALLEST, drawn(CHOICES, 1)):
            own = extract("conformer", model, changes).parallel(batch.features)
            of_texts = ctc_loss(own, lengths, batch.targets, batch.target_lengths)
            rows = [
                functional.kl_div(own[i, :n], taught[i, :n].exp(), reduction="sum") / n
                for i, n in enumerate(lengths.tolist())
            ]
            losses.append(0.5 * float(of_texts) + 0.5 * float(torch.stack(rows).mean()))
    assert found == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert len({round(loss, 3) for loss in losses}) == 3


def test_what_the_largest_says_is_not_moved_towards_the_small(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, supernet=replace(recipe.supernet, frame_weight=1.0))  # type: ignore[type-var]
    trainer = Trainer(recipe, tmp_path)
    model, batch = trainer.model.eval(), trainer.training_set[0]
    trainer.objective(model, batch).backward()
    together = model.layers[1].norm.weight.grad.clone()  # type: ignore[index, union-attr, operator]
    model.zero_grad()
    assert drawn(CHOICES, 1)["num_layers"] != 3  # so the middle layer is the largest network's alone
    (Ctc(trainer.tokens)(model, batch) / 3).backward()
    torch.testing.assert_close(together, model.layers[1].norm.weight.grad)  # type: ignore[index, union-attr]


def test_every_network_is_drawn() -> None:
    found = {tuple(drawn(CHOICES, number).values()) for number in range(200)}
    assert len(found) == 18
    assert drawn(CHOICES, 7) == drawn(CHOICES, 7)


def test_a_run_resumes_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, run=replace(recipe.run, precision="bf16", evaluate_every=3))
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, accumulate=2))
    whole = train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    trainer._update(trainer.training_set.parts(0))
    trainer.save()
    cut = train(recipe, tmp_path / "cut", quiet=True)
    first, second = load_model(whole), load_model(cut)
    weights = second.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())
    assert first.supernet == second.supernet == CHOICES
    assert first.metrics.keys() >= {"dev_wer", "dev_wer_smallest"}


def test_a_run_begins_with_the_channels_that_matter(recipe: Recipe, tmp_path: Path) -> None:
    plain = train(replace(recipe, supernet=None), tmp_path / "plain", quiet=True)
    given = load_model(plain)
    assert given.supernet == {}
    started = replace(recipe, model={**recipe.model, "weights": str(plain)})
    (tmp_path / "run").mkdir()
    model, features = Trainer(started, tmp_path / "run").model.eval(), torch.randn(1, 60, 23) * 3 - 8
    with torch.no_grad():
        torch.testing.assert_close(
            model.parallel(features), given.model.parallel(features), rtol=0, atol=1e-5
        )
    own, theirs = model.state_dict(), given.model.state_dict()
    moved = "layers.0.feed_forward1.expand.weight"
    assert not torch.equal(own[moved], theirs[moved])
    shared = train(started, tmp_path / "run", quiet=True)  # whose order is what its networks were trained in
    again = replace(recipe, model={**recipe.model, "weights": str(shared)})
    (tmp_path / "again").mkdir()
    weights = load_model(shared).model.state_dict()
    found = Trainer(again, tmp_path / "again").model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


@pytest.fixture
def supernet(recipe: Recipe) -> LoadedModel:
    torch.manual_seed(1)
    model = models.build("conformer", {**recipe.model, "num_features": 23, "vocab_size": 11}).eval()
    config = models.config_of(model)
    tokens, metrics = ["<blk>", *"abcdefghij"], {"dev_wer": 3.0, "steps": 7}
    return LoadedModel(model, tokens, recipe.frontend, "conformer", config, metrics, supernet=CHOICES)


def test_the_command_writes_a_network_of_real_shapes(
    supernet: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, small = tmp_path / "large.pt", tmp_path / "small.pt"
    save_model(large, supernet)
    words = ["prune", str(large), "-o", str(small), "--subnetwork", "num_layers=2,feed_forward_dim=8"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["changes"] == {"num_layers": [3, 2], "feed_forward_dim": [32, 8]}
    found = load_model(small)
    assert found.supernet == {}
    assert found.metrics == {"steps": 7}
    assert sum(p.numel() for p in found.model.parameters()) == document["parameters"]
    assert small.stat().st_size < 0.7 * large.stat().st_size
    features = torch.randn(1, 50, 23)
    with torch.no_grad():
        expected = extract("conformer", supernet.model, {"num_layers": 2, "feed_forward_dim": 8})
        assert torch.equal(found.model.parallel(features), expected.parallel(features))
    assert main([*words, "--force", "--ratio", "0.2"]) == 2
    assert main([*words[:-1], "num_layers=9", "--force"]) == 2
    assert "no sub-network of num_layers = 9; trained are num_layers 1, 2, 3" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "num_layers", "num_layers=", "num_layers=x", "num_layers=-1", "a=²"])
def test_changes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="a sub-network is given as"):
        read_changes(text)


def test_networks_that_were_not_trained_are_refused(supernet: LoadedModel) -> None:
    for changes in ({"conv_kernel": 5}, {"d_model": 8}, {"num_layers": 0}):
        with pytest.raises(InputError, match=r"no sub-network of .*conv_kernel 3, 15"):
            subnetwork(supernet, changes)
    with pytest.raises(InputError, match=r"train it with a \[supernet\]"):
        subnetwork(replace(supernet, supernet={}), {"num_layers": 2})
    assert subnetwork(supernet, {}).config == supernet.config


def test_a_checkpoint_keeps_the_choices_and_an_ordinary_one_has_none(
    supernet: LoadedModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    save_model(path, supernet)
    assert load_model(path).supernet == CHOICES
    save_model(path, replace(supernet, supernet={}))
    assert "supernet" not in torch.load(path, weights_only=True)
    assert load_model(path).supernet == {}


@pytest.mark.parametrize(
    "hostile",
    [
        [("num_layers", [1, 3])],
        "num_layers",
        7,
        {"num_layers": 3},
        {"num_layers": []},
        {"num_layers": [3, 1]},
        {"num_layers": [1, 1, 3]},
        {"num_layers": [1, 2]},
        {"num_layers": [0, 3]},
        {"num_layers": [True, 3]},
        {"num_layers": [1.0, 3]},
        {"num_layers": ["1", 3]},
        {"num_layers": [1, 3, 10**30]},
        {"num_layers": list(range(10**5))},
        {"conv_kernel": [1, 15]},
        {"d_model": [8, 16]},
        {3: [1, 3]},
        {"kernel": [3, 5]},
        {"x" * 10**5: [1]},
    ],
)
def test_hostile_choices_are_refused(supernet: LoadedModel, tmp_path: Path, hostile: Any) -> None:
    path = tmp_path / "model.pt"
    save_model(path, supernet)
    data = torch.load(path, weights_only=True)
    torch.save({**data, "supernet": hostile}, path)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("architecture", NOT_ALIKE)
def test_layers_that_are_not_alike_do_not_vary(architecture: str) -> None:
    config = models.config_of(make(architecture))
    with pytest.raises(InputError, match="not alike"):
        check_choices(architecture, config, {"num_layers": [2, LAYERS]})


def test_models_that_do_not_stream_are_refused() -> None:
    with pytest.raises(InputError, match="for models that stream, not wav2vec2"):
        check_choices("wav2vec2", {"num_layers": 12}, {"num_layers": [6, 12]})


BAD = [
    ("num_layers=[1, 4]", r"the last the model's own 3"),
    ("num_layers=[3]", "nothing to choose"),
    ("num_layers=[]", "nothing to choose"),
    ("num_layers=[0, 3]", "whole numbers from 1"),
    ("num_layers=[1.5, 3]", "must be int"),
    ("num_layers=3", "must be a list"),
    ("d_model=[8, 16]", "unknown key 'supernet.d_model'"),
    ("kernel=[3, 5]", "of a conformer num_layers, feed_forward_dim, conv_kernel can vary"),
    ("conv_kernel=[1, 15]", "conv_kernel is 1"),
    ("frame_weight=1.5", "frame_weight is 1.5"),
]


@pytest.mark.parametrize(("text", "complaint"), BAD)
def test_bad_sections_are_refused(digits: Path, tmp_path: Path, text: str, complaint: str) -> None:
    lists = "" if "weight" not in text else "num_layers = [1, 3]\n"
    path = tmp_path / "recipe.toml"
    path.write_text(f"""
data.root = {str(digits)!r}
data.train = [{{manifest = "clips.jsonl"}}]
model = {{d_model = 16, num_layers = 3, num_heads = 2, feed_forward_dim = 32}}
[supernet]
{lists}{text}
""")
    with pytest.raises(InputError, match=complaint):
        Trainer(read_recipe(path, []), tmp_path)


def test_the_recipe_here_varies_what_its_model_has() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / "digits_supernet.toml", [])
    assert recipe.supernet is not None
    settings = {name: value for name, value in recipe.model.items() if name != "weights"}
    config = models.config_of(models.build(recipe.architecture, settings))
    check_choices(recipe.architecture, config, recipe.supernet.choices)


def test_what_does_not_go_with_it_is_refused(recipe: Recipe) -> None:
    for other in ({"objective": "cross_entropy"}, {"quantization": Quantization()}):
        with pytest.raises(InputError, match=r"\[supernet\] goes with"):
            replace(recipe, model={**recipe.model, "weights": "model.pt"}, **other)  # type: ignore[arg-type]
