"""Files that belong to an image: further channels and its mask, found by templates of their paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diptych.data.folder import compare_with_manifest, expand, locate, wanted
from diptych.data.manifest import checksum, checksums
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Item
from diptych.data.scan import Found, Scan
from diptych.errors import ConfigError
from diptych_medical import readers
from diptych_medical.image import ImageHeader, Reading
from diptych_medical.settings import Masks, Source


@dataclass(frozen=True, kw_only=True)
class Companions:
    """Where the further files of one image should lie; they need not be there."""

    channels: tuple[Path | None, ...]  # None: the template has a group that the image's path does not give
    mask: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that the templates lead to, the mask last."""
        return tuple(path for path in (*self.channels, self.mask) if path is not None)


def companions_of(item: Item, root: Path, source: Source, masks: Masks | None) -> Companions:
    """What the templates of ``data.channel_files`` and ``masks.files`` lead to for one image."""
    match = re.search(source.names, item.name) if source.names else None
    fields: dict[str, str | None] = {"record": PurePosixPath(item.name).name}
    fields.update(match.groupdict() if match else {})

    def path_of(template: str, setting: str) -> Path | None:
        used = set(re.findall(r"{(\w+)", template))
        if any(fields.get(name) is None for name in used):
            return None
        return root / expand(template, setting).as_posix().format(**fields)

    return Companions(
        channels=tuple(path_of(each, "data.channel_files") for each in source.channel_files),
        mask=None if masks is None else path_of(masks.files, "masks.files"),
    )


def find_images(
    files: Sequence[Path], root: Path, /, *, source: Source, masks: Masks | None, reading: Reading
) -> Found:
    """The images below a folder, without the files that are masks or further channels of others.

    Raises ConfigError where a template leads from an image to itself.
    """
    found = readers.find(files, root, source.format, reading=reading)
    belongs: set[Path] = set()
    selves: dict[Path, str] = {}
    for _, item in found.items:
        if not wanted(item.path.relative_to(root).as_posix(), source.include, source.exclude):
            continue
        for path in companions_of(item, root, source, masks).paths:
            if path == item.path:
                selves[path] = (
                    "masks.files" if not source.channel_files else "data.channel_files or masks.files"
                )
            else:
                belongs.add(path)
    if lost := [setting for path, setting in selves.items() if path not in belongs]:
        raise ConfigError(
            f"{lost[0]}: the template leads from {len(lost)} images to the image itself; masks and further "
            "channels are other files"
        )
    return Found(
        items=tuple((kind, item) for kind, item in found.items if item.path not in belongs),
        other=tuple(path for path in found.other if path not in belongs),
    )


def hash_companions(
    every: Sequence[Companions], found: Scan[ImageHeader], source: Source
) -> tuple[dict[Path, str], dict[Path, str]]:
    """(SHA-256 of the files that are there, reasons of those that cannot be read).

    Those below the data folder join the checksums of the scan, and are compared with the manifest where the
    data come from one.
    """
    paths = sorted({path for each in every for path in each.paths if path.is_file()})
    below = {found.relative(path): path for path in paths if path.is_relative_to(found.root)}
    lost = Quarantine()
    sums = checksums(found.root, list(below), quarantine=lost)
    _, _, manifest = locate(source.path)
    if manifest is not None:
        compare_with_manifest(manifest, sums)
    found.checksums.update(sums)
    digests = {below[name]: each.sha256 for name, each in sums.items()}
    unread = {below[row.path]: row.reason for row in lost.rows}
    for path in paths:
        if path not in below.values():
            try:
                digests[path] = checksum(path).sha256
            except OSError as error:
                unread[path] = f"cannot be read: {error.strerror}"
    return digests, unread
