"""Find images, their masks and labels, prepare them in parallel and serve them from a cache."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
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
from diptych_medical.prepared import Prepared
from diptych_medical.settings import Imaging, Masks, Source, reading
from diptych_medical.store import Store

__all__ = ["Imaging", "Label", "Masks", "Prepared", "Source", "prepare"]

Integers = NDArray[np.int64]

_PLACES = 10  # parts of a volume that slices are told apart by


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
