"""Pictures keep their depth; colour is never taken for grey."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import cut
from PIL import Image as Pillow

from diptych.data.readable import Item, Unreadable
from diptych_medical import readers
from diptych_medical.image import Image, Reading

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (5, 7)).astype(np.uint8)
COLOUR = DRAW.integers(0, 256, (5, 7, 3)).astype(np.uint8)
DEEP = DRAW.integers(0, 65536, (5, 7)).astype(np.uint16)


def item_of(path: Path) -> Item:
    ((kind, item),) = readers.find([path], path.parent).items
    assert kind == "picture"
    return item


def load(path: Path, **how: Any) -> Image:
    item, reading = item_of(path), Reading(**{"dims": 2, **how})
    image = readers.read("picture", item, reading)
    assert readers.read_header("picture", item, reading).shape == image.header.shape
    return image


def reason(path: Path, **how: Any) -> str:
    with pytest.raises(Unreadable) as error:
        readers.read("picture", item_of(path), Reading(**{"dims": 2, **how}))
    return str(error.value)


def write(path: Path, picture: Any, **how: Any) -> Path:
    (picture if isinstance(picture, Pillow.Image) else Pillow.fromarray(picture)).save(path, **how)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_grey_values_are_kept(tmp_path: Path, name: str) -> None:
    image = load(write(tmp_path / name, GREY))
    assert image.data.dtype == np.float32
    assert np.array_equal(image.data[0], GREY)
    assert np.array_equal(image.header.affine, np.eye(3))
    assert load(tmp_path / name, spacing=(0.5, 0.25)).header.spacing == (0.5, 0.25)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_and_floats_are_kept(tmp_path: Path, name: str) -> None:
    assert np.array_equal(load(write(tmp_path / name, DEEP)).data[0], DEEP)
    floats = GREY.astype(np.float32) / 7
    assert np.array_equal(load(write(tmp_path / "f.tif", floats)).data[0], floats)


def test_jpeg_is_read(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(16) * 8, np.arange(16) * 4).astype(np.uint8)
    assert np.abs(load(write(tmp_path / "a.jpg", smooth, quality=95)).data[0] - smooth).max() < 8


def test_colour_is_rejected_made_grey_or_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", COLOUR)
    assert reason(path) == "colour: a colour image where grey is expected"
    assert np.array_equal(load(path, colour="rgb", channels=3).data, COLOUR.transpose(2, 0, 1))
    assert np.allclose(load(path, colour="grey").data[0], COLOUR @ [0.299, 0.587, 0.114], atol=1e-4)
    grey = load(write(tmp_path / "b.png", GREY), colour="rgb", channels=3)
    assert np.array_equal(grey.data, np.stack([GREY] * 3))


def test_palettes_are_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Pillow.fromarray(COLOUR).quantize(16))
    expected = np.asarray(Pillow.open(path).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(load(path, colour="rgb", channels=3).data, expected)
    assert reason(path).startswith("colour:")


def test_opaque_transparency_is_no_channel(tmp_path: Path) -> None:
    opaque = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    path = write(tmp_path / "a.png", opaque)
    assert np.array_equal(load(path, colour="rgb", channels=3).data, COLOUR.transpose(2, 0, 1))
    opaque[2, 3, 3] = 100
    assert reason(write(tmp_path / "b.png", opaque), colour="rgb", channels=3).startswith("transparency:")


def test_colours_of_sixteen_bits_are_not_cut_to_eight(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack([DEEP] * 3, axis=-1))
    head = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert reason(tmp_path / "a.png", colour="rgb", channels=3).startswith("colour depth:")


def test_several_pages_are_a_volume(tmp_path: Path) -> None:
    pages = DRAW.integers(0, 256, (3, 5, 7)).astype(np.uint8)
    first, *rest = [Pillow.fromarray(page) for page in pages]
    path = write(tmp_path / "a.tif", first, save_all=True, append_images=rest)
    assert reason(path) == "axes: 3D where 2D is expected"
    image = load(path, dims=3, spacing=(3.0, 1.0, 1.0), orientation="SPR")
    assert np.array_equal(image.data[0], pages)
    assert np.array_equal(image.header.affine[:3, :3], [[0, 0, 1], [0, -1, 0], [3, 0, 0]])
    assert reason(write(tmp_path / "b.png", GREY), dims=3) == "axes: 2D where 3D is expected"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_broken_files_are_rejected(tmp_path: Path, name: str, share: float) -> None:
    noise = DRAW.integers(0, 256, (60, 60)).astype(np.uint8)
    assert reason(cut(write(tmp_path / name, noise), share)).startswith("malformed picture (")


def test_label_maps_are_grey_or_numbered_by_a_palette(tmp_path: Path) -> None:
    for k, labels in enumerate((DEEP, GREY, GREY > 100)):
        mask, affine = readers.read_mask(
            "picture", item_of(write(tmp_path / f"{k}.png", labels)), Reading(dims=2)
        )
        assert np.array_equal(mask, labels)
        assert mask.dtype == np.int64
        assert affine.shape == (3, 3)
    numbered = Pillow.fromarray(GREY % 5).convert("P")
    numbered.putpalette(list(range(100, 115)))
    mask, _ = readers.read_mask("picture", item_of(write(tmp_path / "p.png", numbered)), Reading(dims=2))
    assert np.array_equal(mask, GREY % 5)
    with pytest.raises(Unreadable, match=r"^label map: a colour picture"):
        readers.read_mask("picture", item_of(write(tmp_path / "c.png", COLOUR)), Reading(dims=2))
