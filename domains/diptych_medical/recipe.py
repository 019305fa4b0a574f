"""The recipe of the medical domain: its typed signature is the YAML and the command line of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diptych.data.folder import expand
from diptych.data.identity import Split
from diptych.data.labels import Label
from diptych.data.loading import Draw, OrderedBatches, ResumableLoader, ShuffledBatches, uniform_of_keys
from diptych.errors import ConfigError
from diptych.method import MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Indices, Study
from diptych.types import Views
from diptych_medical.features import baseline
from diptych_medical.sampling import PairBatches
from diptych_medical.settings import Imaging, Masks, Source
from diptych_medical.simulate import simulate
from diptych_medical.source import Prepared, prepare

_VOXELS_PER_BATCH = 1 << 21  # of a batch without gradients
_MOST_PER_BATCH = 256
_CHOICE = 0x5EED  # what the labelled patients are drawn from, apart from the training's seed


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Images in a batch, or pairs for methods that align pairs, over all processes.
        drop_last: Leave out the images or pairs that fill no batch; others are left out in the next epoch.
        same: Text labels that both images of a pair share, such as [sex, view]; "place" of slices is the tenth
            of the volume that they lie in.
        same_patient: A pair may hold two images of one patient.
        labelled_patients: For methods that learn from masks too, how many of the training patients with masks
            they see them of; by default all.
        workers: Processes that load batches; crops are cut from a memory map and rarely need any.
        cache: Folder of prepared images; by default DIPTYCH_CACHE or the user's cache folder.
        readers: Processes that read and prepare images; by default one per CPU.
    """

    batch_size: int = 2
    drop_last: bool = False
    same: list[str] = field(default_factory=list)
    same_patient: bool = False
    labelled_patients: int | None = None
    workers: int = 0
    cache: str | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"loader.batch_size is at least 1; got {self.batch_size}")
        if self.labelled_patients is not None and self.labelled_patients < 1:
            raise ConfigError(f"loader.labelled_patients is at least 1; got {self.labelled_patients}")


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Simulated volumes for a first try: no result on them is a finding.

    Args:
        patients: Simulated patients, one volume each.
        side: Voxels along an axis, 16 to 64.
        seed: What they are drawn from.
    """

    patients: int = 24
    side: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patients < 1 or not 16 <= self.side <= 64:
            raise ConfigError(
                f"simulation: at least 1 patient and sides of 16 to 64 voxels; got {self.patients} and {self.side}"
            )


@dataclass(frozen=True, kw_only=True)
class ImageStudy(Study):
    """A study whose images and masks evaluators may read whole."""

    images: Prepared


class Crops:
    """Boxes of prepared images as batches with their ids and masks.

    Args:
        prepared: The images.
        group: Images that belong together, one after the other in a batch: 1, or 2 for pairs, 3 with a labelled
            one. The first two of a group are cut at the same relative place.
    """

    def __init__(self, prepared: Prepared, group: int = 1) -> None:
        self.prepared, self.group = prepared, group

    def batch(self, indices: Indices) -> Views:
        """One view (n, c, *space) cut from the middle, and the groups "sample", "patient", labels and "mask"."""
        return self._views(indices, None)

    def places(self, draw: Draw) -> NDArray[np.float64]:
        """Where each image of a draw is cut, (n, d) from 0 to below 1: a function of its key alone.

        Raises ConfigError where the processes' shares of a batch would part images that belong together.
        """
        if len(draw.indices) % self.group:
            raise ConfigError(
                f"a process's share of {len(draw.indices)} images is no whole number of groups of {self.group}; "
                "set loader.batch_size to a multiple of the processes and loader.drop_last: true"
            )
        keys = draw.keys().reshape(-1, self.group)
        if self.group > 1:
            keys = np.concatenate([keys[:, :1], keys[:, :1], keys[:, 2:]], axis=1)
        return uniform_of_keys(keys.reshape(-1), self.prepared.dims)

    def _views(self, indices: Indices, corners: Indices | None) -> Views:
        prepared = self.prepared
        images, masks = prepared.batch(indices, corners)
        groups = {
            "sample": torch.from_numpy(np.asarray(indices, np.int64)),
            **{name: torch.from_numpy(ids[indices]) for name, ids in prepared.groups.items()},
        }
        if masks is not None:
            groups["mask"] = torch.from_numpy(masks)
        return Views(views=(torch.from_numpy(images),), groups=groups)


class RandomCrops(Crops):
    """The same at random places, anew each epoch."""

    def fetch(self, draw: Draw) -> Views:
        """As :meth:`batch`, cut where the draw's keys say."""
        return self._views(draw.indices, self.prepared.corners(draw.indices, self.places(draw)))


def build(
    *,
    data: Source,
    image: Imaging = Imaging(),  # noqa: B008  (frozen)
    masks: Masks | None = None,
    labels: Mapping[str, Label] = {},
    simulation: Simulation | None = None,
    split: Split = Split(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),
    encoder: Callable[[int, int], nn.Module],
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
    features: Literal["intensity", "none"] = "none",
) -> ImageStudy:
    """Builds a study of 2D images or 3D volumes.

    Args:
        data: Which images there are, whose they are, and the table that describes them.
        image: Dimensions, orientation, voxel size, intensity and crops.
        masks: Label maps of the images: for methods that learn from some, and for evaluators.
        labels: What evaluators may predict and pairs may share, by name.
        simulation: Writes simulated volumes to data.path before it is read; for demos and tests.
        split: Shares of patients in train, validation and test.
        loader: How batches are made.
        encoder: The network; it is given the number of channels and of dimensions.
        method: How the encoder is pretrained, such as diptych_medical.gemini.GEMINI.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule of torch, or diptych.schedules.WarmupCosine.
        features: Intensities for the classical rows of evaluation tables.
    """
    if simulation is not None:
        simulate(expand(data.path, "data.path"), **asdict(simulation), workers=loader.readers)
    images = prepare(data, image, masks, labels, split, cache=loader.cache, workers=loader.readers)
    pairs = bool(getattr(method, "pairs", False))
    from_masks = pairs and bool(getattr(method, "labelled", False))
    check_same(images, loader.same, pairs)

    def training(indices: Indices, seed: int) -> ResumableLoader:
        if not pairs:
            plan = ShuffledBatches(indices, loader.batch_size, seed, drop_last=loader.drop_last)
            return ResumableLoader(RandomCrops(images), plan, workers=loader.workers)
        paired = PairBatches(
            indices,
            images.groups["patient"][indices],
            group_names(images, indices, loader.same),
            batch_size=loader.batch_size,
            seed=seed,
            same_patient=loader.same_patient,
            labelled=labelled_images(images, indices, loader.labelled_patients) if from_masks else None,
            drop_last=loader.drop_last,
        )
        return ResumableLoader(RandomCrops(images, paired.size), paired, workers=loader.workers)

    def plain(indices: Indices) -> ResumableLoader:
        size = max(1, min(_MOST_PER_BATCH, _VOXELS_PER_BATCH // (images.voxels * images.channels)))
        return ResumableLoader(Crops(images), OrderedBatches(indices, size), shared=False)

    def new_encoder() -> nn.Module:
        return encoder(images.channels, images.dims)

    return ImageStudy(
        samples=images.samples,
        new_encoder=new_encoder,
        method=partial(_method, method, optimizer, schedule),
        training=training,
        plain=plain,
        baseline=None if features == "none" else partial(baseline, images),
        summary=images.report,
        images=images,
    )


def check_same(images: Prepared, same: list[str], pairs: bool) -> None:
    """Raise ConfigError where pairs are to share what is no text label of the data set, or none are made."""
    known = [name for name in images.groups if name != "patient"]
    if unknown := [name for name in same if name not in known]:
        raise ConfigError(
            f"loader.same: {unknown[0]!r} is no text label of this config; known: {', '.join(known) or 'none'}"
        )
    if same and not pairs:
        raise ConfigError("loader.same is for methods that learn from pairs; this one does not")


def group_names(images: Prepared, indices: Indices, same: list[str]) -> NDArray[np.str_]:
    """What each image's partner must share with it, (n,), such as "sex F, view PA".

    Raises ConfigError where such a label is missing: an image of unknown view has no partner.
    """
    columns = []
    for name in same:
        numbers = images.groups[name][indices]
        if missing := int((numbers < 0).sum()):
            raise ConfigError(
                f"loader.same: the label {name!r} is missing for {missing} of {len(indices)} training images; "
                f"set labels.{name}.blank to give them a class of their own, or leave them out"
            )
        classes = images.names.get(name)
        texts = numbers.astype(str) if classes is None else np.array(classes)[numbers]
        columns.append([f"{name} {text}" for text in texts])
    return np.array(
        [", ".join(row) for row in zip(*columns, strict=True)] if columns else [""] * len(indices)
    )


def labelled_images(images: Prepared, indices: Indices, patients: int | None) -> Indices:
    """Those of the images that have masks, of some patients drawn once for the data set.

    Raises ConfigError where fewer patients have masks.
    """
    known = indices[images.labelled[indices]]
    if patients is None:
        return known
    owners = images.groups["patient"][known]
    every = np.unique(owners)
    if len(every) < patients:
        raise ConfigError(
            f"loader.labelled_patients: {patients} wanted, {len(every)} training patients have masks"
        )
    chosen = np.random.default_rng(_CHOICE).permutation(every)[:patients]
    return np.asarray(known[np.isin(owners, chosen)], np.int64)


def _method(
    method: MethodBuilder, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, encoder: nn.Module
) -> Any:
    return method(encoder, optimizer, schedule)
