"""Batch plans and a loader that can start anywhere in an epoch and give the same batches on any machine.

What a run sees is a pure function of its seed: a plan names every global batch of every epoch, each process
takes its contiguous share of a batch, and whatever is random inside a fetch is keyed by seed, epoch and
sample. So neither the number of workers nor an interruption changes a number.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from diptych.errors import ConfigError
from diptych.types import Views

Indices = NDArray[np.int64]


class Draw(NamedTuple):
    """One fetch: which samples, and what their randomness is keyed by."""

    seed: int
    epoch: int
    batch: int  # the batch's position in its epoch
    indices: Indices  # (n,): this process's share of the global batch

    def keys(self) -> NDArray[np.uint64]:
        """One random 64-bit key per sample, (n,): see :func:`sample_keys`."""
        return sample_keys(self.seed, self.epoch, self.indices)

    def generator(self) -> np.random.Generator:
        """A generator for the whole fetch, for draws that belong to no single sample."""
        return np.random.default_rng((self.seed & _MASK, self.epoch, self.batch, int(self.indices[0])))


_MASK = (1 << 64) - 1


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that scatters neighbours."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sample_keys(seed: int, epoch: int, indices: Indices) -> NDArray[np.uint64]:
    """One 64-bit random key per sample, (n,): a pure function of seed, epoch and the sample's index.

    The same sample has the same key in whichever batch, worker or process it is fetched.
    """
    golden = 0x9E3779B97F4A7C15
    state = _mix(np.array([(seed + golden) & _MASK], dtype=np.uint64))
    state = _mix(state ^ np.array([((epoch + 1) * golden) & _MASK], dtype=np.uint64))
    return _mix(state + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(golden))


def uniform_of_keys(keys: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) from each key, (n, count): a hash of the key and the number's place."""
    rounds = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(_mix(keys[:, None] + rounds) >> np.uint64(11), np.float64) / 2.0**53


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """A generator of one sample's own: :func:`sample_keys` for datasets that fetch one sample at a time."""
    return np.random.default_rng(sample_keys(seed, epoch, np.array([index], dtype=np.int64)))


class BatchPlan(Protocol):
    """Names the global batches of an epoch: a pure function of the plan's seed and the epoch.

    Every epoch has the same number of batches; no batch is empty.
    """

    seed: int

    def batches(self, epoch: int) -> Sequence[Indices]: ...


class ShuffledBatches:
    """Every sample once an epoch, in an order drawn anew each epoch.

    A last batch of a single sample holds nothing to contrast it with: with ``drop_last`` the samples left
    over are skipped in that epoch, and others are in the next.
    """

    def __init__(self, indices: Indices | int, batch_size: int, seed: int, drop_last: bool = False) -> None:
        self.indices = np.arange(indices, dtype=np.int64) if isinstance(indices, int) else np.asarray(indices)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        _check_batch_size(batch_size)
        if drop_last and len(self.indices) < batch_size:
            raise ConfigError(
                f"batch size {batch_size} with only {len(self.indices)} samples and drop_last leaves no "
                f"batch; set a batch size of at most {len(self.indices)}"
            )

    def batches(self, epoch: int) -> list[Indices]:
        """The batches of one epoch; the last one may be smaller."""
        order = np.random.default_rng((self.seed & _MASK, epoch)).permutation(self.indices)
        batches = _cut(order, self.batch_size)
        return [batch for batch in batches if len(batch) == self.batch_size] if self.drop_last else batches


class OrderedBatches:
    """The given samples in the given order, the same in every epoch: for embedding."""

    def __init__(self, indices: Indices, batch_size: int) -> None:
        _check_batch_size(batch_size)
        self.indices = np.asarray(indices)
        self.batch_size = batch_size
        self.seed = 0

    def batches(self, epoch: int) -> list[Indices]:
        """The same batches whatever the epoch; the last one may be smaller."""
        return _cut(self.indices, self.batch_size)


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"a batch size is at least 1, got {batch_size}")


@runtime_checkable
class BatchDataset(Protocol):
    """A dataset that fetches a whole batch at once, by slicing a memory map for instance."""

    def batch(self, indices: Indices, /) -> Views: ...


@runtime_checkable
class DrawnDataset(Protocol):
    """A dataset whose samples are drawn at random when they are fetched, such as crops of large images.

    What it gives is a function of the draw alone: ``draw.keys()`` are one random key per sample.
    """

    def fetch(self, draw: Draw, /) -> Views: ...


class _Fetches(Dataset[Any]):
    """Runs one draw, in whichever process: fetch, collate, then the random transform."""

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Views] | None,
        transform: Callable[[Views, Draw], Views] | None,
    ) -> None:
        self.dataset = dataset
        self.collate = collate
        self.transform = transform

    def __getitem__(self, draw: Draw) -> Views:
        with seeded(int(draw.keys()[0])):
            if self.collate is None and isinstance(self.dataset, DrawnDataset):
                views: Views = self.dataset.fetch(draw)
            elif self.collate is None:
                views = self.dataset.batch(draw.indices)
            else:
                views = self.collate([self.dataset[int(index)] for index in draw.indices])
            return views if self.transform is None else self.transform(views, draw)


@contextmanager
def seeded(key: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seeds the global generators of torch, NumPy and Python for a block, and restores them afterwards.

    A dataset that uses a global generator thus gives the same samples with any number of workers and after
    any interruption, and the training's own random numbers do not depend on who loads the data.
    ``devices`` are accelerators whose generators are restored too.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    accelerators = [device for device in devices if device.type != "cpu"]
    kind = accelerators[0].type if accelerators else "cuda"
    with torch.random.fork_rng(devices=accelerators, device_type=kind):
        torch.default_generator.manual_seed(key >> 1)  # torch takes 63 bits
        np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002  (it is the global generator that is meant)
        random.seed(key)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


class _Position(Sampler[Draw]):
    """The draws from one place in the plan on; Lightning calls ``set_epoch`` at every epoch's start."""

    def __init__(self, plan: BatchPlan, shared: bool) -> None:
        self.plan = plan
        self.shared = shared
        self.epoch = 0
        self.first = 0
        self.length = len(plan.batches(0))

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.first = epoch, 0

    def __iter__(self) -> Iterator[Draw]:
        batches = self.plan.batches(self.epoch)
        if len(batches) != self.length:
            raise ValueError(
                f"{type(self.plan).__name__} gave {len(batches)} batches for epoch {self.epoch} and "
                f"{self.length} for epoch 0; a plan gives the same number in every epoch"
            )
        rank, world = process_of() if self.shared else (0, 1)
        draws = []
        for number in range(self.first, self.length):
            batch = batches[number]
            if len(batch) < world:
                raise ConfigError(
                    f"a batch of {len(batch)} samples cannot be shared by {world} processes; "
                    "choose a batch size that leaves no such rest, or drop the last batch"
                )
            share = np.array_split(batch, world)[rank]
            draws.append(Draw(self.plan.seed, self.epoch, number, share))
        return iter(draws)

    def __len__(self) -> int:
        return self.length


def process_of() -> tuple[int, int]:
    """(rank, number of processes) of this process; (0, 1) outside a distributed run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class ResumableLoader(DataLoader[Any]):
    """Loads a plan's batches; can start in the middle of an epoch and gives then what it would have given.

    ``dataset`` fetches whole batches (``dataset.batch(indices) -> Views``), draws them
    (``dataset.fetch(draw) -> Views``), or is indexed sample by sample and ``collate`` makes a batch of the
    list. ``transform(views, draw)`` draws random views, keyed by ``draw``. In a distributed run each process
    loads its contiguous share of every batch; with ``shared=False`` each loads everything.

    No random number is taken from a global generator of this process.
    """

    def __init__(
        self,
        dataset: Any,
        plan: BatchPlan,
        *,
        collate: Callable[[list[Any]], Views] | None = None,
        transform: Callable[[Views, Draw], Views] | None = None,
        workers: int = 0,
        shared: bool = True,
        pin_memory: bool = False,
    ) -> None:
        if collate is None and not isinstance(dataset, BatchDataset | DrawnDataset):
            raise TypeError(
                f"{type(dataset).__name__} has no batch(indices) or fetch(draw) method; give a collate function with a "
                "dataset that is indexed sample by sample"
            )
        self.plan = plan
        self.position = _Position(plan, shared)
        super().__init__(
            _Fetches(dataset, collate, transform),
            batch_size=None,
            sampler=self.position,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_parent,
            generator=torch.Generator().manual_seed(
                0
            ),  # for the workers' base seed, which nothing depends on
            pin_memory=pin_memory,
        )

    def start(self, epoch: int, batch: int = 0) -> None:
        """The next iteration begins at this batch of this epoch; those after it at an epoch's first batch."""
        if not 0 <= batch < max(1, len(self)):
            raise ValueError(f"an epoch has {len(self)} batches; cannot start at batch {batch}")
        self.position.epoch, self.position.first = epoch, batch


def _as_it_is(views: Any) -> Any:
    return views


def _leave_signals_to_parent(worker: int) -> None:
    """A batch system signals every process of a job; a worker that died of it would fail the last step."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
