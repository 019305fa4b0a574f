"""From scanned images to jobs, and from prepared pieces to one table of images: rows, ids, manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated
from diptych.data.assemble import recordings_table
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Unreadable
from diptych.data.scan import Scan, item_path
from diptych.errors import ConfigError, DataError
from diptych_medical import geometry
from diptych_medical.companions import Companions
from diptych_medical.image import ImageHeader
from diptych_medical.pieces import Job, Piece, Task
from diptych_medical.prepare import PLANES
from diptych_medical.settings import Imaging, Masks

Integers = NDArray[np.int64]

_VOXELS_PER_JOB = 1 << 20  # small images are stored together up to this many voxels
_MOST_PER_JOB = 256
_SPACING = 0.01  # relative difference of spacings that count as equal


@dataclass(frozen=True, kw_only=True)
class Used:
    """The images that are used, in the order of the scan, and their samples (slices, or themselves), flat."""

    numbers: Integers  # (recordings,) index into the annotated images
    facts: list[dict[str, Any]]  # (recordings,) plain facts
    files: list[Path]  # pieces
    recording_of: Integers  # (samples,) index into the recordings
    file: Integers  # (samples,) index into ``files``
    shapes: Integers  # (samples, d)
    starts: Integers  # (samples,)
    mask_starts: Integers  # (samples,)
    affines: NDArray[np.float64]  # (samples, d + 1, d + 1)
    slices: Integers  # (samples,) -1 for whole images
    lows: NDArray[np.float64]  # (samples,)

    def keep(self, good: NDArray[np.bool_]) -> Used:
        """Only these recordings, (recordings,)."""
        samples = good[self.recording_of]
        number = np.cumsum(good) - 1
        chosen = {
            name: getattr(self, name)[samples]
            for name in ("file", "shapes", "starts", "mask_starts", "affines", "slices", "lows")
        }
        return Used(
            numbers=self.numbers[good],
            facts=[each for each, kept in zip(self.facts, good, strict=True) if kept],
            files=self.files,
            recording_of=number[self.recording_of[samples]],
            **chosen,
        )


def spacing_in_ras(header: ImageHeader) -> tuple[float, ...]:
    """Spacing in mm along the axes an image has after it is turned."""
    if header.dims == 2:
        return header.spacing
    return tuple(header.spacing[axis] for axis in geometry.orientation_of(header.affine).axes)


def common_spacing(headers: Sequence[ImageHeader], imaging: Imaging) -> tuple[float, ...]:
    """Spacing of the stored images along their axes, mm; of resized ones 1, so that lengths count pixels.

    Raises ConfigError where the images' own spacings differ and nothing says what to do.
    """
    if imaging.size is not None:
        return (1.0, 1.0)
    rest = [axis for axis in range(3) if imaging.slices is None or axis != PLANES[imaging.slices]]
    if imaging.spacing is not None:
        every = np.array([imaging.spacing])
    else:
        every = np.array([spacing_in_ras(header) for header in headers])
    if imaging.slices is not None:
        every = every[:, rest]
    middle = np.median(every, axis=0)
    if not imaging.mixed_spacing and (np.abs(every - middle) > _SPACING * middle).any():
        counts = Counter(" x ".join(f"{each:.3g}" for each in row) for row in every.tolist())
        listed = ", ".join(f"{spacing} mm ({count})" for spacing, count in counts.most_common(4))
        raise ConfigError(
            f"the images have different spacings: {listed}; set image.spacing to resample them to one, or "
            "image.mixed_spacing: true to leave them as they are"
        )
    return tuple(float(each) for each in middle)


def same_patient_ids(annotated: Annotated[ImageHeader], rule: str) -> dict[int, str]:
    """Images, by number, whose patient id joins several patient ids of the headers, with the reason."""
    ids: dict[str, set[str]] = defaultdict(set)
    for patient, each in zip(annotated.patients, annotated.scanned, strict=True):
        if each.header.patient:
            ids[patient].add(each.header.patient)
    return {
        number: f"two patients: {len(ids[patient])} patient ids of the headers stand under one id of the rule "
        f"{rule!r}; set data.patient: header"
        for number, patient in enumerate(annotated.patients)
        if len(ids[patient]) > 1
    }


def make_task(
    number: int,
    annotated: Annotated[ImageHeader],
    companions: Companions,
    found: Scan[ImageHeader],
    digests: Mapping[Path, str],
    unread: Mapping[Path, str],
) -> Task:
    """What has to be read for one image. Raises Unreadable where a further file is missing or unreadable."""
    scanned = annotated.scanned[number]
    absent = sum(path is None or not path.is_file() for path in companions.channels)
    if absent:
        raise Unreadable(
            f"missing channel: {absent} of {len(companions.channels)} files of data.channel_files are not there"
        )
    mask = companions.mask if companions.mask is not None and companions.mask.is_file() else None
    channels = tuple(path for path in companions.channels if path is not None)
    for path in (*channels, *([mask] if mask else [])):
        if path in unread:
            raise Unreadable(f"mask or channel file {unread[path]}")
    own = [
        found.checksums[found.relative(file)].sha256 for file in scanned.item.files or (scanned.item.path,)
    ]
    further = [digests[path] for path in (*channels, *([mask] if mask else []))]
    return Task(kind=scanned.kind, item=scanned.item, channels=channels, mask=mask, digests=(*own, *further))


def make_jobs(
    tasks: Sequence[tuple[int, Task]], headers: Sequence[ImageHeader]
) -> list[tuple[Job, list[int]]]:
    """Images in jobs, with their numbers: small ones together, in order."""
    jobs: list[tuple[Job, list[int]]] = []
    chunk: list[tuple[int, Task]] = []
    voxels = 0
    for number, task in tasks:
        size = int(np.prod(headers[number].shape)) * headers[number].channels
        if chunk and (voxels + size > _VOXELS_PER_JOB or len(chunk) >= _MOST_PER_JOB):
            jobs.append(_job(chunk))
            chunk, voxels = [], 0
        chunk.append((number, task))
        voxels += size
    return [*jobs, _job(chunk)] if chunk else jobs


def _job(chunk: Sequence[tuple[int, Task]]) -> tuple[Job, list[int]]:
    return Job(tasks=tuple(task for _, task in chunk)), [number for number, _ in chunk]


def use(
    grouped: Sequence[tuple[Job, list[int]]],
    pieces: Sequence[tuple[Path, Piece | list[str]]],
    found: Scan[ImageHeader],
    quarantine: Quarantine,
    dims: int,
) -> Used:
    """Put the images of all pieces in a row; rejected ones go to quarantine."""
    numbers: list[int] = []
    facts: list[dict[str, Any]] = []
    files: list[Path] = []
    columns: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for (job, members), (target, piece) in zip(grouped, pieces, strict=True):
        fates: list[dict[str, Any]]
        fates = [{"reason": reason} for reason in piece] if isinstance(piece, list) else piece.facts
        for task, fate in zip(job.tasks, fates, strict=True):
            if "reason" in fate:
                quarantine.add(item_path(task.item, found.root), str(fate["reason"]))
        if isinstance(piece, list):
            continue
        good = np.array(["reason" not in fate for fate in fates])
        place = np.cumsum(good) - 1 + len(numbers)  # recording of each task; only that of good ones is used
        columns["recording_of"].append(place[piece.task])
        columns["file"].append(np.full(len(piece.task), len(files)))
        for name in ("shapes", "starts", "mask_starts", "affines", "slices", "lows"):
            columns[name].append(getattr(piece, name))
        numbers += [members[i] for i in np.flatnonzero(good)]
        facts += [fates[i] for i in np.flatnonzero(good)]
        files.append(target)
    empty: dict[str, NDArray[Any]] = {name: np.zeros(0, np.int64) for name in Used.__annotations__}
    empty |= {
        "shapes": np.zeros((0, dims), np.int64),
        "affines": np.zeros((0, dims + 1, dims + 1)),
        "lows": np.zeros(0),
    }
    joined = {
        name: np.concatenate([empty[name], *columns[name]])
        for name in ("recording_of", "file", "shapes", "starts", "mask_starts", "affines", "slices", "lows")
    }
    return Used(numbers=np.array(numbers, np.int64), facts=facts, files=files, **joined)


def leave_out_small(
    used: Used, annotated: Annotated[ImageHeader], found: Scan[ImageHeader], quarantine: Quarantine,
    crop: Sequence[int],
) -> Used:  # fmt: skip
    """Without the images that are smaller than the crop along an axis, which go to quarantine."""
    good = np.ones(len(used.numbers), bool)
    for recording, shape in zip(used.recording_of.tolist(), used.shapes, strict=True):
        if good[recording] and (shape < np.array(crop)).any():
            good[recording] = False
            item = annotated.scanned[used.numbers[recording]].item
            quarantine.add(
                item_path(item, found.root),
                f"smaller than the crop: {' x '.join(map(str, shape.tolist()))} voxels, the crop has "
                f"{' x '.join(map(str, crop))} (image.small: pad keeps it)",
            )
    return used.keep(good)


def leave_out_copies(
    used: Used, annotated: Annotated[ImageHeader], found: Scan[ImageHeader], quarantine: Quarantine
) -> Used:
    """Of images with the same voxels only the first; the others go to quarantine."""
    seen: set[str] = set()
    good = np.ones(len(used.numbers), bool)
    for recording, facts in enumerate(used.facts):
        if facts["content"] in seen:
            good[recording] = False
            item = annotated.scanned[used.numbers[recording]].item
            quarantine.add(item_path(item, found.root), "copy: the same voxels stand under another id")
        seen.add(facts["content"])
    return used.keep(good)


def nothing_left(quarantine: Quarantine) -> ConfigError | DataError:
    """The error where every image was rejected."""
    kinds = quarantine.kinds()
    if set(kinds) == {"smaller than the crop"}:
        return ConfigError(
            f"image.crop: every image ({len(quarantine)}) is smaller; the first: {quarantine.rows[0].reason}"
        )
    reasons = Counter(row.reason for row in quarantine.rows).most_common(3)
    return DataError(f"no image can be used: {'; '.join(f'{reason} ({count})' for reason, count in reasons)}")


def identify(
    used: Used, annotated: Annotated[ImageHeader], split: Split
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ids of all samples, table of images), salted. A trial is an image, or what data.trial names."""
    table = recordings_table(annotated, used.numbers.tolist(), split)
    named = [annotated.trials[number] for number in used.numbers]
    salt = pseudonym_salt()
    table["trial"] = [
        salted_key(salt, f"trial:{patient}:{name}" if name else f"trial:{recording}")
        for patient, recording, name in zip(table["patient"], table["recording"], named, strict=True)
    ]
    return table.iloc[used.recording_of].reset_index(drop=True), table


def describe(used: Used, annotated: Annotated[ImageHeader], rows: Sequence[int]) -> Mapping[str, Any]:
    """Facts of the file that holds the images ``rows`` of the table."""
    first = annotated.scanned[used.numbers[rows[0]]]
    facts: dict[str, Any] = {
        "format": first.kind,
        "shape": list(first.header.shape),
        "channels": first.header.channels,
        "spacing": [round(each, 4) for each in first.header.spacing],
    }
    if first.header.modality:
        facts["modality"] = first.header.modality
    if len(rows) == 1:
        facts["content"] = used.facts[rows[0]]["content"]
    return facts


def count_masks(used: Used, masks: Masks) -> str:
    """How many images have a mask, for the report."""
    labelled = len(np.unique(used.recording_of[used.mask_starts >= 0]))
    return f"{labelled} of {len(used.numbers)} images ({', '.join(masks.names[1:])})"
