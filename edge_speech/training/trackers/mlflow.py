"""MLflow, https://mlflow.org/docs. MLFLOW_TRACKING_URI says where to: a server or, with
MLFLOW_ALLOW_FILE_STORE=true, the URI of a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.training.run_log import write_text
from edge_speech.training.trackers import PROJECT, TrackedRun, Tracker

# The most parameters MLflow takes at once.
MOST_PARAMETERS = 100


class MLflow(Tracker):
    """`client` is an MlflowClient and `run_id` one of its runs. Everything raises InputError."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def write(self, line: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        numbers = [Metric(key, float(x), now_ms, line["step"]) for key, x in line.items() if key != "step"]
        with _explained():
            self.client.log_batch(self.run_id, metrics=numbers)

    def keep(self, files: Sequence[Path]) -> None:
        with _explained():
            for path in files:
                self.client.log_artifact(self.run_id, str(path))

    def close(self, done: bool) -> None:
        with _explained():
            self.client.set_terminated(self.run_id, "FINISHED" if done else "KILLED")


def start(run: TrackedRun) -> Tracker:
    """Start the run, or go on with it. Raises InputError."""
    from mlflow.tracking import MlflowClient

    with _explained():
        client = MlflowClient()
        run_id = run.known_as("mlflow")
        if run_id is None:
            run_id = _new_run(client, run)
            write_text(run.identity("mlflow"), run_id + "\n")
        client.update_run(run_id, status="RUNNING")
    return MLflow(client, run_id)


@contextmanager
def _explained() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise InputError(f"mlflow: {error}; set MLFLOW_TRACKING_URI to a server that answers") from error


def _new_run(client: Any, run: TrackedRun) -> str:
    from mlflow.entities import Param

    experiment = client.get_experiment_by_name(PROJECT)
    number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    run_id: str = client.create_run(number, run_name=run.name).info.run_id
    parameters = [Param(name, str(value)) for name, value in run.parameters.items()]
    for i in range(0, len(parameters), MOST_PARAMETERS):
        client.log_batch(run_id, params=parameters[i : i + MOST_PARAMETERS])
    return run_id
