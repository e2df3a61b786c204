"""What the processes of a group tell each other, by torch.distributed: gloo between CPUs, nccl between GPUs.

Every function must be called by all processes of the group, in the same order. In a group of one they give
back what they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from edge_speech.errors import CheckFailed, InputError
from edge_speech.group import Group

T = TypeVar("T")


@contextmanager
def connected(group: Group) -> Iterator[None]:
    """Connect the processes of `group` for as long as this lasts.

    Of several that fail, the first raises its error and the others, which may only have lost the connection
    to it, end without a word. Raises CheckFailed when one was killed, InputError without torchrun.
    """
    if group.size == 1:
        yield
        return
    try:
        store, _, _ = next(rendezvous("env://"))
    except ValueError as error:
        raise InputError(f"WORLD_SIZE is {group.size}, but {error}; start with torchrun") from error
    dist.init_process_group(_backends(), store=store, rank=group.rank, world_size=group.size)
    try:
        yield
    except Exception as error:  # the connection ends with the process: what it has to say comes before
        if store.add("failed", 1) > 1:
            raise SystemExit(1) from None
        if isinstance(error, dist.DistBackendError) or "by peer" in str(error):  # nccl's and gloo's
            raise CheckFailed("another process of this run was killed; start all of them again") from error
        raise
    dist.destroy_process_group()


def total(group: Group, value: float) -> float:
    """The sum of what each process gives."""
    if group.size == 1:
        return value
    sum_ = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(sum_)
    return sum_.item()


def any_of(group: Group, flag: bool) -> bool:
    """Whether it holds in any process."""
    return total(group, float(flag)) > 0


def gathered(group: Group, item: T) -> list[T]:
    """What each process gives, by rank."""
    if group.size == 1:
        return [item]
    items: list[T] = [item] * group.size
    dist.all_gather_object(items, item)
    return items


def broadcast(group: Group, tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of process 0."""
    if group.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def device_of(name: str, group: Group) -> torch.device:
    """The device of this process for `run.device`: of several on one machine each has a GPU of its own.

    Raises InputError.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if group.size == 1 or device.type != "cuda":
        return device
    if group.local_rank >= torch.cuda.device_count():
        raise InputError(
            f"process {group.local_rank} of this machine has no GPU, there are {torch.cuda.device_count()}; "
            "start fewer (torchrun --nproc-per-node), or --set run.device=cpu"
        )
    torch.cuda.set_device(group.local_rank)
    return torch.device("cuda", group.local_rank)


class _Loss(nn.Module):
    """A loss as the forward of a module that holds the model, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(batch)


def shared(group: Group, model: nn.Module, loss: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """`loss`, whose backward leaves in every process the mean of the gradients of all.

    All start with the parameters and buffers of process 0. On GPUs batch norm is over the rows of all
    processes (SyncBatchNorm). On CPUs, where torch has none, each process normalises its own rows and the
    running statistics are of process 0's.
    """
    if group.size == 1:
        return loss
    if next(model.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(_Loss(model, loss))


def exchange(loss: Callable[[Any], Tensor], now: bool) -> AbstractContextManager[None]:
    """Whether the backward within exchanges gradients; otherwise they add up to those of the next."""
    if now or not isinstance(loss, DistributedDataParallel):
        return nullcontext()
    return loss.no_sync()  # type: ignore[no-any-return]


def random_state(device: torch.device) -> dict[str, Any]:
    """Where the random numbers of this process are."""
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": on_gpu}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on from what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def new_random_state(group: Group, seed: int, step: int) -> None:
    """Draw from numbers of this process and this step from now on."""
    numbers = np.random.SeedSequence([seed, step, 1 + group.rank])
    torch.manual_seed(int(numbers.generate_state(1)[0]))


def _backends() -> str:
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
