"""Find images, their masks and labels, prepare them in parallel and serve them from a cache."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated, annotate
from diptych.data.assemble import check_copies, list_files, numbers_of, report_found
from diptych.data.identity import Split
from diptych.data.labels import Label
from diptych.data.leaks import check_leaks
from diptych.data.pieces import cache_folder, make_pieces
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Unreadable
from diptych.data.scan import Scan, item_path, scan
from diptych.errors import ConfigError
from diptych.study import Samples
from diptych_medical import readers
from diptych_medical.assemble import (
    Used,
    common_spacing,
    count_masks,
    describe,
    identify,
    leave_out_copies,
    leave_out_small,
    make_jobs,
    make_task,
    nothing_left,
    same_patient_ids,
    use,
)
from diptych_medical.companions import companions_of, find_images, hash_companions
from diptych_medical.geometry import spacing_of
from diptych_medical.image import ImageHeader
from diptych_medical.pieces import Plan, Task, load, store
from diptych_medical.prepare import Stored
from diptych_medical.settings import Imaging, Masks, Source, reading
from diptych_medical.store import Store

__all__ = ["Imaging", "Label", "Masks", "Prepared", "Source", "prepare"]

Integers = NDArray[np.int64]

_PLACES = 10  # parts of a volume that slices are told apart by


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set ready to be cut: row i of ``samples`` is image i, or one slice of a volume."""

    samples: Samples
    channels: int
    dims: int  # of a sample: 2 for pictures and slices
    classes: tuple[str, ...]  # of masks, the background first; () where no masks are configured
    # per sample: numbers of its "patient" and of every text label (-1: missing), and of slices their "place",
    # the tenth of the volume they lie in
    groups: Mapping[str, Integers]
    names: Mapping[str, tuple[str, ...]]  # of the groups that are text labels: the class of each number
    crop_shape: tuple[int, ...]  # voxels of an image in a batch
    spacings: NDArray[np.float64]  # (n, dims) mm
    labelled: NDArray[np.bool_]  # (n,) whether there is a mask
    recordings: pd.DataFrame  # one row an image: keys and split
    recording_of: Integers  # (n,) row of ``recordings``
    store: Store
    report: Mapping[str, str]  # what was found, in lines for inspect and the report
    used: Used = field(repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> NDArray[np.float32]:
        """One whole image (c, *space), as prepared: a copy."""
        return np.array(self.store.image(index), np.float32)

    def mask(self, index: int) -> Integers | None:
        """Its label map (*space): -1 unlabelled, 0 background, i the class ``classes[i]``; None without one."""
        mask = self.store.mask(index)
        return None if mask is None else mask.astype(np.int64)

    def shape(self, index: int) -> tuple[int, ...]:
        """Its voxels, without channels."""
        return tuple(self.store.shapes[index].tolist())

    def spacing(self, index: int) -> tuple[float, ...]:
        """Size of its voxels in mm; 1 where files carry none."""
        return tuple(self.spacings[index].tolist())

    def stored(self, index: int) -> Stored:
        """The image with what leads back to its file (see ``prepare.to_input_space``)."""
        facts = dict(self.used.facts[self.recording_of[index]])
        if (place := int(self.used.slices[index])) >= 0:
            facts["slice"] = place
        return Stored(
            data=self.image(index), mask=self.store.mask(index), affine=self.used.affines[index], facts=facts
        )

    def batch(
        self, indices: Integers, corners: Integers | None = None
    ) -> tuple[NDArray[np.float32], Integers | None]:
        """Boxes of ``crop_shape``: (n, c, *crop_shape) float32 and masks (n, *crop_shape) int64.

        Args:
            indices: (n,) which images.
            corners: (n, d) first voxel of each box; by default boxes lie in the middle. Beyond an image its
                lowest value goes on, and masks are -1.

        Returns masks as None where the data set has none; unlabelled images have -1 all over.
        """
        where = self.corners(indices) if corners is None else corners
        return self.store.crops(indices, where, self.crop_shape, masks=bool(self.classes))

    def corners(self, indices: Integers, places: NDArray[np.float64] | None = None) -> Integers:
        """First voxels (n, d) of boxes of ``crop_shape`` at relative places of the images.

        Args:
            indices: (n,) which images.
            places: (n, d) from 0, the first possible box, to below 1, the last; by default the middle. Along
                an axis that is shorter than the crop, boxes lie in the middle whatever the place.
        """
        spare = self.store.shapes[indices] - np.array(self.crop_shape)
        middle: Integers = spare // 2  # rounded down, also where it is negative
        if places is None:
            return middle
        drawn: Integers = np.where(spare > 0, np.floor(places * (spare + 1)).astype(np.int64), middle)
        return drawn

    @cached_property
    def voxels(self) -> int:
        """Voxels of an image in a batch."""
        return int(np.prod(self.crop_shape))


def prepare(
    source: Source,
    imaging: Imaging,
    masks: Masks | None,
    labels: Mapping[str, Label],
    split: Split,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read every image once, prepare it, store it with its mask and put ids and labels to it.

    Args:
        source: Where the images are and whose.
        imaging: What is made of them.
        masks: Where their masks are and what the values mean; None: without masks.
        labels: Labels by name.
        split: Decides the split of every patient from the raw id.
        cache: Folder of prepared images; by default ``DIPTYCH_CACHE`` or the user's cache folder. A run that
            was stopped goes on where it was; pieces are found by the checksum of files and the settings.
        workers: Processes; by default one per CPU this process may use.

    Raises:
        ConfigError: a setting that does not fit the data (unknown column, spacings that differ, no mask where
            the template leads, a crop larger than every image that may not be padded).
        DataError: no images, too many in quarantine, contradictory table rows, one image under two ids.
    """
    folder = cache_folder(cache, "medical")
    plan = Plan(imaging=imaging, masks=masks, reading=reading(source, imaging, masks))
    if masks is not None:
        source.check_template(masks.files, "masks.files")
    found = scan(
        source,
        partial(find_images, source=source, masks=masks, reading=plan.reading),
        partial(readers.read_header, reading=plan.reading),
        expected=readers.EXPECTED,
        unit="image",
        workers=workers,
    )
    quarantine = Quarantine()
    for path, reason in found.rejected:
        quarantine.add(path, reason)
    annotated = annotate(found, source, labels, quarantine)
    spacing = common_spacing([each.header for each in annotated.scanned], imaging)
    tasks = list_tasks(annotated, source, masks, found, quarantine)
    grouped = make_jobs(tasks, [each.header for each in annotated.scanned])
    jobs = [job for job, _ in grouped]
    pieces = make_pieces(
        jobs,
        [job.key(plan) for job in jobs],
        folder,
        load=load,
        store=partial(store, plan=plan),
        unit="image",
        workers=workers,
    )
    used = use(grouped, pieces, found, quarantine, imaging.dims)
    if source.copies == "reject":
        used = leave_out_copies(used, annotated, found, quarantine)
    crop = crop_of(imaging, spacing)
    if crop is not None and imaging.small == "reject":
        used = leave_out_small(used, annotated, found, quarantine, crop)
    if not len(used.numbers):
        raise nothing_left(quarantine)
    quarantine.check(len(found.scanned) + len(found.rejected), imaging.max_quarantined)
    sidecars = {number: [*task.channels, *([task.mask] if task.mask else [])] for number, task in tasks}
    return _together(used, annotated, found, quarantine, source, imaging, masks, split, crop, sidecars)


def list_tasks(
    annotated: Annotated[ImageHeader],
    source: Source,
    masks: Masks | None,
    found: Scan[ImageHeader],
    quarantine: Quarantine,
) -> list[tuple[int, Task]]:
    """What is to be read, with the images' numbers; images that lack a file go to quarantine.

    Raises ConfigError where the template of masks leads to no file at all.
    """
    every = [companions_of(each.item, found.root, source, masks) for each in annotated.scanned]
    if masks is not None and not any(each.mask is not None and each.mask.is_file() for each in every):
        raise ConfigError(
            f"masks.files: {masks.files!r} leads to no file for any of the {len(every)} images; it is a path "
            "below data.path, with {record} for an image's name without suffix"
        )
    digests, unread = hash_companions(every, found, source)
    mixed = same_patient_ids(annotated, source.patient)
    tasks = []
    for number, companions in enumerate(every):
        try:
            if number in mixed:
                raise Unreadable(mixed[number])
            tasks.append((number, make_task(number, annotated, companions, found, digests, unread)))
        except Unreadable as error:
            quarantine.add(item_path(annotated.scanned[number].item, found.root), str(error))
    return tasks


def crop_of(imaging: Imaging, spacing: tuple[float, ...]) -> tuple[int, ...] | None:
    """Voxels of the crop that the config sets, at least 1 along each axis; None where it sets none."""
    if imaging.crop is None:
        return None
    return tuple(max(1, round(length / step)) for length, step in zip(imaging.crop, spacing, strict=True))


def _together(
    used: Used,
    annotated: Annotated[ImageHeader],
    found: Scan[ImageHeader],
    quarantine: Quarantine,
    source: Source,
    imaging: Imaging,
    masks: Masks | None,
    split: Split,
    crop: tuple[int, ...] | None,
    sidecars: Mapping[int, list[Path]],
) -> Prepared:
    """The data set of the images in use, after the checks that stop a run."""
    ids, table = identify(used, annotated, split)
    numbers = used.numbers.tolist()
    below = {
        row: [path for path in sidecars[number] if path.is_relative_to(found.root)]
        for row, number in enumerate(numbers)
    }
    manifest = list_files(annotated, numbers, found, table, partial(describe, used, annotated), below)
    check_copies([str(facts["content"]) for facts in used.facts], table, found.unit, "voxels")
    check_leaks(ids, manifest)
    of = used.numbers[used.recording_of]
    labels = pd.DataFrame(
        {name: values.values[of] for name, values in annotated.labels.items()}, index=ids.index
    )
    groups, names = _groups(ids, labels, used)
    fills = used.lows if imaging.intensity == "none" else np.zeros_like(used.lows)
    shape = crop or tuple(used.shapes.max(axis=0).tolist())
    prepared_spacing = np.array([spacing_of(affine) for affine in used.affines])
    return Prepared(
        samples=Samples(ids=ids, labels=labels, manifest=manifest, quarantine=quarantine),
        channels=imaging.channels,
        dims=imaging.dims,
        classes=() if masks is None else masks.names,
        groups=groups,
        names=names,
        crop_shape=shape,
        spacings=prepared_spacing,
        labelled=used.mask_starts >= 0,
        recordings=table,
        recording_of=used.recording_of,
        store=Store(
            used.files,
            used.file,
            used.starts,
            used.mask_starts,
            used.shapes,
            fills.astype(np.float32),
            imaging.channels,
        ),
        report=_report(used, annotated, found, quarantine, source, table, imaging, masks, shape),
        used=used,
    )


def _groups(
    ids: pd.DataFrame, labels: pd.DataFrame, used: Used
) -> tuple[dict[str, Integers], dict[str, tuple[str, ...]]]:
    """Numbers of patients, text labels and places, and the classes of the labels by number."""
    groups = {"patient": numbers_of(ids["patient"])}
    names: dict[str, tuple[str, ...]] = {}
    for name in labels.columns:
        if labels[name].dtype.kind != "f":
            codes, classes = pd.factorize(labels[name], sort=True)  # -1 where missing
            groups[str(name)] = np.asarray(codes, np.int64)
            names[str(name)] = tuple(str(each) for each in classes)
    if len(used.slices) and used.slices[0] >= 0:
        plane = np.array([facts["plane"] for facts in used.facts])[used.recording_of]
        volume = np.array([facts["volume"] for facts in used.facts])[used.recording_of]
        depth = volume[np.arange(len(plane)), plane]
        groups["place"] = used.slices * _PLACES // depth
    return groups, names


def _report(
    used: Used,
    annotated: Annotated[ImageHeader],
    found: Scan[ImageHeader],
    quarantine: Quarantine,
    source: Source,
    table: pd.DataFrame,
    imaging: Imaging,
    masks: Masks | None,
    crop: tuple[int, ...],
) -> dict[str, str]:
    """Lines about the data set, without ids of patients."""
    low, high = used.shapes.min(axis=0).tolist(), used.shapes.max(axis=0).tolist()
    counts = {
        "voxels": f"{' x '.join(map(str, low))} to {' x '.join(map(str, high))}, "
        f"{imaging.channels} channel{'s' * (imaging.channels > 1)}; a batch holds {' x '.join(map(str, crop))}"
    }
    modalities = Counter(str(facts["modality"]) for facts in used.facts if facts["modality"])
    if modalities:
        counts["modalities"] = ", ".join(f"{name} ({count})" for name, count in modalities.most_common())
    if imaging.slices is not None:
        taken = sum(-(-facts["volume"][facts["plane"]] // imaging.every) for facts in used.facts)
        counts["slices"] = (
            f"{len(used.slices)} {imaging.slices}; {taken - len(used.slices)} constant ones left out"
        )
    if masks is not None:
        counts["masks"] = count_masks(used, masks)
    owners: dict[str, set[str]] = defaultdict(set)
    for patient, each in zip(annotated.patients, annotated.scanned, strict=True):
        if each.header.patient:
            owners[each.header.patient].add(patient)
    if spread := sum(len(each) > 1 for each in owners.values()):
        counts["patient ids of headers"] = (
            f"{spread} of {len(owners)} stand under several ids of the rule {source.patient!r}; "
            "data.patient: header joins them"
        )
    return report_found(table, annotated, found, quarantine, source.patient, counts)
