"""`optimize --search`: what is tried, what enters the bundle, and what the report says of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from edge_speech.cli import main
from edge_speech.errors import CheckFailed, InputError
from edge_speech.target import load_target
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech_tools import latency, pipeline, reference
from edge_speech_tools.cache import Cache
from edge_speech_tools.contract import check_contract
from edge_speech_tools.job import Job, load_job
from edge_speech_tools.passes import load_passes
from edge_speech_tools.plan import OptimizeConfig, make_plan
from edge_speech_tools.prune import depth
from edge_speech_tools.search import model as search_model
from edge_speech_tools.search import step, study
from edge_speech_tools.search.finalists import pareto
from edge_speech_tools.search.model import alone, job_of, model_space, rechunked
from edge_speech_tools.search.options import SearchOptions
from edge_speech_tools.search.space import Settings, Space, groups_of
from edge_speech_tools.stages import build
from test_optimize import config_of, write_model

TRIALS = 6


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread, and one round of timing: nothing here is about time."""
    with reference.single_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def config(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> OptimizeConfig:
    folder = tmp_path_factory.mktemp("search")
    return config_of(
        write_model(folder / "model.pt"),
        folder / "bundle",
        "linux-x86_64",
        eval_manifest=digits / "clips.jsonl",
        calibration_manifest=digits / "calibration.jsonl",
        accuracy_budget=1000.0,
        cache=folder / "cache",
        force=True,
        search=SearchOptions(TRIALS, limit=2),
    )


@pytest.fixture(scope="module")
def report(config: OptimizeConfig) -> dict[str, Any]:
    return pipeline.optimize(config).report


def arguments(config: OptimizeConfig, *more: str) -> list[str]:
    return [
        "optimize", str(config.model), "--target", config.target, "-o", str(config.output), "--force",
        "--eval", str(config.eval_manifest), "--calibration", str(config.calibration_manifest),
        "--cache", str(config.cache), "--accuracy-budget", "1000", "--search-limit", "2", *more,
    ]  # fmt: skip


def test_the_report_has_every_trial_and_its_front(report: dict[str, Any], config: OptimizeConfig) -> None:
    trials = report["search"]["trials"]
    assert [t["trial"] for t in trials] == list(range(TRIALS))
    again = [t for t in trials if t["finalist"]]
    assert [t["settings"]["precision"] for t in again[:3]] == ["fp32", "int8-static", "int8-dynamic"]
    assert {t["utterances"] for t in again} == {5}
    flags = pareto([(t["wer"], t["rtf"], t["bytes"]) for t in again])
    assert [t["pareto"] for t in again] == flags
    (chosen,) = (t for t in trials if t["chosen"])
    assert chosen["pareto"]
    assert not any(t["pareto"] for t in trials if not t["finalist"])
    page = (config.output / "report.html").read_text(encoding="utf-8")
    assert "<h2>Search</h2>" in page
    assert page.count('<circle class="chosen"') == 1
    assert page.count("<circle class=") == len([t for t in trials if t["failed"] is None])


def test_the_bundle_holds_the_chosen_trial(report: dict[str, Any], config: OptimizeConfig) -> None:
    (chosen,) = (t for t in report["search"]["trials"] if t["chosen"])
    (artifact,) = (a for a in report["artifacts"] if a["kept"])
    assert (artifact["precision"], artifact["bytes"]) == (chosen["settings"]["precision"], chosen["bytes"])
    assert artifact["status"] == "verified"
    manifest = json.loads((config.output / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["encoder"]["chunk_frames"] == chosen["settings"]["chunk_frames"]
    said = manifest["provenance"]["search"]
    assert said["trial"] == chosen["trial"]
    assert {key: said[key] for key in chosen["settings"]} == json.loads(json.dumps(chosen["settings"]))
    (quality,) = (q for q in report["quality"]["artifacts"] if q["precision"] == artifact["precision"])
    assert quality["wer"] == pytest.approx(chosen["wer"], abs=1e-3)
    assert main(["verify", str(config.output), "--quiet"]) == 0


def test_words_are_counted_against_the_given_model(report: dict[str, Any], config: OptimizeConfig) -> None:
    plain = pipeline.optimize(replace(config, search=None, precision="fp32")).report
    assert report["quality"]["wer_pytorch"] == plain["quality"]["wer_pytorch"]
    assert report["provenance"]["checkpoint_sha256"] == plain["provenance"]["checkpoint_sha256"]


def test_a_second_run_measures_only_what_is_missing(
    report: dict[str, Any], config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(*given: Any, **named: Any) -> Any:
        measured.append(given)
        raise InputError("cannot be made")

    monkeypatch.setattr(step, "measure_trial", measure)
    assert pipeline.optimize(config).report["search"] == report["search"]
    assert not measured
    more = pipeline.optimize(replace(config, search=SearchOptions(TRIALS + 2, limit=2))).report["search"]
    assert len(measured) == 2
    assert more["trials"][:TRIALS] == report["search"]["trials"]
    assert [t["failed"] for t in more["trials"][TRIALS:]] == ["cannot be made"] * 2
    assert "cannot be made" in (config.output / "report.html").read_text(encoding="utf-8")


def test_where_none_is_within_the_budget_nothing_is_claimed(
    report: dict[str, Any], config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_given", lambda *_: ("onnxruntime", -2000.0))  # a model that is always right
    output = config.output.with_name("none")
    with pytest.raises(CheckFailed, match=r"over the accuracy budget of 1000"):
        pipeline.optimize(replace(config, output=output))
    assert not output.exists()


def test_a_dry_run_says_how_many_trials_are_kept(
    report: dict[str, Any], config: OptimizeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(config, "--search", "9", "--dry-run", "--json")) == 0
    steps = json.loads(capsys.readouterr().out)["plan"]["steps"]
    (searched,) = (s for s in steps if s["action"] == "search")
    assert f"{len(list_of_trials(config))} of 9 trials kept" == searched["cached"]
    assert main(arguments(config, "--search", "9", "--search-chunk-ms", "80", "--dry-run", "--json")) == 0
    steps = json.loads(capsys.readouterr().out)["plan"]["steps"]
    assert [s["cached"] for s in steps if s["action"] == "search"] == [""]  # other lengths, another search


def list_of_trials(config: OptimizeConfig) -> list[study.Trial]:
    assert config.cache is not None
    (folder,) = config.cache.glob("search.*")
    return study.ended(study.open_study(folder))


def test_several_processes_and_checkpoints(config: OptimizeConfig, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.pt")
    options = SearchOptions(4, jobs=2, limit=1, models=(other,))
    small = replace(config, search=options, cache=tmp_path / "cache", output=tmp_path / "bundle")
    trials = pipeline.optimize(replace(small, calibration_manifest=None)).report["search"]["trials"]
    assert [t["trial"] for t in trials] == list(range(4))
    plain = [(t["settings"]["model"], t["settings"]["precision"]) for t in trials[:3]]
    assert plain == [("model.pt", "fp32"), ("model.pt", "int8-dynamic"), ("other.pt", "fp32")]
    assert all(t["failed"] is None for t in trials)


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--search", "0"], "1 and more"),
        (["--search", "3", "--search-jobs", "0"], "--search-jobs"),
        (["--search", "3", "--search-chunk-ms", "fast"], "--search-chunk-ms"),
        (["--search", "3", "--search-chunk-ms", "130"], "130"),
        (["--search", "3", "--search-models", "nowhere.pt"], "nowhere.pt"),
        (["--search-models", "a.pt"], "--search N"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    more: list[str], named: str, config: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = replace(config, output=tmp_path / "bundle", cache=tmp_path / "cache")
    assert main(arguments(fresh, *more, "--quiet")) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_search_needs_words(config: OptimizeConfig) -> None:
    with pytest.raises(InputError, match="--eval"):
        pipeline.optimize(replace(config, eval_manifest=None))


def test_without_optuna_the_extra_is_named(
    config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith(("optuna", "edge_speech_tools.search.s"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(arguments(config, "--search", "3", "--dry-run")) == 2
    assert 'pip install "edge-speech[search]"' in capsys.readouterr().err


# -- what is done to a model --------------------------------------------------------------------------------


def untrained(architecture: str) -> LoadedModel:
    torch.manual_seed(1)
    model = models.build(architecture, {"size": "small", "num_features": 16, "vocab_size": 7}).eval()
    tokens = ["<blk>", *"abcdef"]
    return LoadedModel(model, tokens, {"type": "fbank"}, architecture, models.config_of(model))


@pytest.mark.parametrize("architecture", models.available())
def test_a_chunk_of_another_length_is_the_same_model(architecture: str) -> None:
    loaded = untrained(architecture)
    longer = rechunked(loaded, 2 * loaded.config["chunk_frames"])
    spec = check_contract(longer.model, 7, 16)
    assert spec.chunk_frames == 2 * loaded.config["chunk_frames"]
    ours, theirs = loaded.model.state_dict(), longer.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if "distance_bias" not in name)
    back = rechunked(longer, loaded.config["chunk_frames"])
    features = torch.randn(1, 64, 16)
    with torch.inference_mode():
        torch.testing.assert_close(back.model.parallel(features), loaded.model.parallel(features))
    with pytest.raises(InputError):
        rechunked(loaded, loaded.config["chunk_frames"] + 1)


@pytest.mark.parametrize("chunk_frames", [8, 32])
def test_attention_keeps_what_it_knows_of_each_distance(chunk_frames: int) -> None:
    loaded = untrained("conformer")
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "distance_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
    attentions = [one.model.layers[0].attention for one in (loaded, rechunked(loaded, chunk_frames))]  # type: ignore[union-attr, index]
    before, after = ({d: a.distance_bias[:, d + a.chunk - 1] for d in reach(a)} for a in attentions)
    assert len(before) != len(after)
    for distance, bias in after.items():
        nearest = min(before, key=lambda known, d=distance: abs(known - d))  # type: ignore[misc]
        assert torch.equal(bias, before[nearest])


def reach(attention: Any) -> range:
    """Distances from a query to its keys, in rows."""
    return range(1 - attention.chunk, attention.left + attention.chunk)


@pytest.mark.parametrize("architecture", models.available())
def test_groups_hold_every_layer_once(architecture: str) -> None:
    model = untrained(architecture).model
    groups = groups_of(model)
    named = [name for names in groups.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) >= {n for n, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert len(groups) <= 12


@pytest.fixture
def job(config: OptimizeConfig, tmp_path: Path) -> Job:
    target, passes = load_target(config.target), load_passes()
    return load_job(config, target, make_plan(config, target, passes), passes, Cache(tmp_path / "cache"))


def space_of(job: Job) -> Space:
    passes = {job.passes[name].PRECISION: name for name in job.plan.candidates}
    return Space((model_space("model.pt", job),), "onnxruntime", passes)


def test_spared_groups_keep_their_weights(job: Job, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    space, group = space_of(job), "layers.*.feed_forward1"
    settings = Settings("model.pt", "int8-static", 16, fp32=(group,))
    found = alone(job_of(job, job, space, settings), space, settings)
    assert found.keys.checkpoint == job.keys.checkpoint
    assert found.keys.build("int8_static") != job.keys.build("int8_static")
    graph = onnx.load(build(found, tmp_path / "work").results[-1].path).graph
    floats = [i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) == 2]
    assert sum(sorted(i.dims) == [32, 64] for i in floats) == 4  # two in each of two layers


def test_what_is_pruned_reaches_its_ratio_and_has_keys_of_its_own(job: Job) -> None:
    space, keys = space_of(job), {job.keys.checkpoint}
    assert space.models[0].ratios[0] == 0
    for ratio in space.models[0].ratios[1:3]:
        found = job_of(job, job, space, Settings("model.pt", "fp32", 16, ratio))
        count = [sum(p.numel() for p in one.loaded.model.parameters()) for one in (found, job)]
        assert count[0] <= (1 - ratio) * count[1]
        keys.add(found.keys.checkpoint)
    assert len(keys) == 3


def test_a_supernet_gives_its_networks(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(job.config.model)
    shared = replace(job, loaded=replace(loaded, supernet={"num_layers": [1, 2]}))

    def subnetwork(one: LoadedModel, changes: dict[str, int]) -> LoadedModel:
        assert changes == {"num_layers": 1}
        return depth.without(loaded, [1])

    fake = SimpleNamespace(subnetwork=subnetwork)
    monkeypatch.setattr(search_model, "supernet", fake)
    space = space_of(shared)
    assert space.models[0].subnetwork == {"num_layers": (2, 1)}
    settings = Settings("model.pt", "fp32", 16, subnetwork={"num_layers": 1})
    found = job_of(shared, shared, space, settings)
    assert found.loaded.config["num_layers"] == 1
    assert found.keys.checkpoint != job.keys.checkpoint
    whole = replace(settings, subnetwork={"num_layers": 2})
    assert job_of(shared, shared, space, whole).keys.checkpoint == job.keys.checkpoint


def test_a_model_that_cannot_be_pruned_is_not(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_model, "can_prune", lambda _: False)
    assert model_space("model.pt", job).ratios == (0.0,)
    monkeypatch.undo()
    assert model_space("model.pt", replace(job, calibration=None)).ratios == (0.0,)
