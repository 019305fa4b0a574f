"""Pictures of what was learnt: a partner warped onto an image, and what is like a chosen point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diptych.data.atomic import replacing
from diptych_medical.evaluated import Array32, Labels

_AXES = ("left to right", "posterior to anterior", "inferior to superior")
_PANEL = 2.7  # inches
_DPI = 110
_LINES = 24  # of a drawn grid along its longer side


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The slice of a volume that is shown, or a whole picture.

    Args:
        axis: The array axis at right angles to the slice; None for pictures.
        place: Which slice.
        spacing: Distance of voxels along every axis of the image.
    """

    axis: int | None
    place: int
    spacing: tuple[float, ...]

    @property
    def shown(self) -> list[int]:
        """The axes that are seen: across, then up (pictures: columns, then rows from the top)."""
        return [1, 0] if self.axis is None else [axis for axis in range(3) if axis != self.axis]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """(*space) to what imshow takes: rows of pixels."""
        if self.axis is None:
            return array
        cut: NDArray[Any] = np.take(array, self.place, axis=self.axis).T
        return cut

    def show(self, axes: Any, array: NDArray[Any], **options: Any) -> Any:
        """Draw one array with the true proportions of its voxels."""
        across, up = (self.spacing[axis] for axis in self.shown)
        origin = "upper" if self.axis is None else "lower"
        return axes.imshow(
            self.of(array), origin=origin, aspect=up / across, interpolation="nearest", **options
        )

    def at(self, point: Sequence[int]) -> tuple[int, int]:
        """Where a voxel is drawn."""
        across, up = (int(point[axis]) for axis in self.shown)
        return across, up


def cut_through(point: Sequence[int], spacing: Sequence[float], axis: int = 2) -> Cut:
    """The slice at right angles to ``axis`` through a voxel; of pictures all is shown."""
    if len(point) == 2:
        return Cut(axis=None, place=0, spacing=tuple(spacing))
    return Cut(axis=axis, place=int(point[axis]), spacing=tuple(spacing))


@dataclass(frozen=True, kw_only=True)
class Warped:
    """A pair of images, one of which was brought to the other.

    Args:
        image: (*space) the image that stays.
        partner: (*space) the one that is warped.
        warped: (*space) the partner in the frame of the image.
        flow: (d, *space) voxels, from a voxel of the image to where the partner is read.
        determinants: (*space) or a little smaller, of the Jacobian of voxel + flow.
        labels: Classes of the image, of the partner and of the warped partner, (*space) each; None without.
    """

    image: Array32
    partner: Array32
    warped: Array32
    flow: Array32
    determinants: Array32
    labels: tuple[Labels, Labels, Labels] | None = None


def pair_picture(path: str | Path, pair: Warped, cut: Cut) -> None:
    """Image, partner, warped partner, differences before and after, grid and Jacobian, as PNG.

    Lines are the borders of the classes; the image's own are drawn over the warped partner too, dashed. The
    grid is that of the image's voxels where they are read in the partner: it folds where its lines cross.
    """
    figure = Figure(figsize=(4 * _PANEL, 2 * _PANEL + 0.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    low, high = _range(pair.image, pair.partner)
    grey = {"cmap": "gray", "vmin": low, "vmax": high}
    named = (("image", pair.image), ("partner", pair.partner), ("warped partner", pair.warped))
    for number, (title, values) in enumerate(named):
        cut.show(panels[number], values, **grey)
        panels[number].set_title(title)
        if pair.labels is not None:
            _borders(panels[number], pair.labels[number], cut, "solid")
    if pair.labels is not None:
        _borders(panels[2], pair.labels[0], cut, "dashed")
    change = {"cmap": "RdBu_r", "vmin": low - high, "vmax": high - low}
    for number, (title, values) in enumerate(
        (("partner - image", pair.partner), ("warped - image", pair.warped)), start=4
    ):
        error = float(np.mean((values - pair.image) ** 2))
        shown = cut.show(panels[number], values - pair.image, **change)
        panels[number].set_title(f"{title}\nmean square {error:.4f}")
    figure.colorbar(shown, ax=panels[5], shrink=0.7)
    _grid(panels[3], pair, cut, grey)
    _jacobian(figure, panels[6], pair.determinants, cut)
    _displacement(figure, panels[7], pair.flow, cut)
    _finish(figure, panels, cut, path)


def likeness_picture(
    path: str | Path,
    images: tuple[Array32, Array32],
    features: tuple[Array32, Array32],
    point: Sequence[int],
    cut: Cut,
) -> tuple[int, ...]:
    """What is like a chosen voxel by the cosine of features, in its image and in a partner, as PNG.

    Args:
        path: The file.
        images: Image and partner, (*space) each.
        features: Of both, (width, *space) each.
        point: The voxel of the image, array indices.
        cut: The slice of the image; the partner is shown in the slice of its best voxel.

    Returns:
        The partner's voxel that is most alike.

    Raises:
        ValueError: the point lies outside the image.
    """
    space = images[0].shape
    if len(point) != len(space) or any(not 0 <= p < size for p, size in zip(point, space, strict=True)):
        raise ValueError(f"the point {tuple(point)} lies outside an image of {space} voxels")
    place = int(np.ravel_multi_index(tuple(point), space))
    chosen = _unit(features[0]).reshape(len(features[0]), -1)[:, place]
    own, other = (np.einsum("c,c...->...", chosen, _unit(each)) for each in features)
    best = tuple(int(place) for place in np.unravel_index(int(other.argmax()), other.shape))
    there = cut_through(best, cut.spacing, cut.axis or 0) if cut.axis is not None else cut
    figure = Figure(figsize=(4 * _PANEL, _PANEL + 0.2), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 4)
    low, high = _range(*images)
    least = min(float(np.quantile(each, 0.05)) for each in (own, other))
    for place, (image, likeness, mark, seen) in enumerate(
        ((images[0], own, tuple(point), cut), (images[1], other, best, there))
    ):
        left, right = panels[2 * place], panels[2 * place + 1]
        seen.show(left, image, cmap="gray", vmin=low, vmax=high)
        shown = seen.show(right, likeness, cmap="magma", vmin=min(least, 0.99), vmax=1.0)
        for panel in (left, right):
            panel.plot(*seen.at(mark), "+", color="cyan", markersize=12, markeredgewidth=1.8)
    panels[0].set_title("image, chosen point")
    panels[1].set_title("likeness to the point")
    where = "" if there.axis is None else f", slice {there.place}"
    panels[2].set_title(f"partner, most alike{where}")
    panels[3].set_title(f"likeness, best {float(other.max()):.3f}")
    figure.colorbar(shown, ax=panels[3], shrink=0.8)
    _finish(figure, panels, cut, path)
    return best


def middle_of(labels: Labels | None, space: Sequence[int]) -> tuple[int, ...]:
    """The voxel of the first structure nearest to its centre, or the middle of the image without one."""
    places = np.argwhere(labels == 1) if labels is not None else np.zeros((0, len(space)), np.int64)
    if not len(places):
        places = np.argwhere(labels > 0) if labels is not None else places
    if not len(places):
        return tuple(size // 2 for size in space)
    nearest = ((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return tuple(int(place) for place in places[nearest])


def _unit(features: Array32) -> Array32:
    length = np.sqrt((features.astype(np.float64) ** 2).sum(axis=0))
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float32)


def _range(*images: Array32) -> tuple[float, float]:
    """Lowest and highest shown intensity, without the few extreme voxels."""
    low = min(float(np.quantile(image, 0.005)) for image in images)
    high = max(float(np.quantile(image, 0.995)) for image in images)
    return (low, high) if high > low else (low, low + 1.0)


def _borders(axes: Any, labels: Labels, cut: Cut, style: str) -> None:
    shown = cut.of(labels)
    for number in np.unique(shown[shown > 0]).tolist():
        colour = f"C{(number - 1) % 10}"
        axes.contour(shown == number, levels=[0.5], colors=[colour], linewidths=1.1, linestyles=style)


def _grid(axes: Any, pair: Warped, cut: Cut, grey: dict[str, Any]) -> None:
    """The image's regular grid where it is read in the partner."""
    cut.show(axes, pair.partner, alpha=0.45, **grey)
    across, up = cut.shown
    space = pair.flow.shape[1:]
    place = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij")) + pair.flow
    x, y = cut.of(place[across]), cut.of(place[up])
    step = max(1, round(max(x.shape) / _LINES))
    axes.plot(x[::step].T, y[::step].T, color="tab:green", linewidth=0.7)
    axes.plot(x[:, ::step], y[:, ::step], color="tab:green", linewidth=0.7)
    axes.set_title("grid, read in the partner")


def _jacobian(figure: Figure, axes: Any, determinants: Array32, cut: Cut) -> None:
    """Local change of volume; what folds is black."""
    most = max(0.25, min(2.0, float(np.abs(determinants - 1).max())))
    norm = TwoSlopeNorm(vmin=1 - most, vcenter=1.0, vmax=1 + most)
    shown = cut.show(axes, determinants, cmap="PuOr_r", norm=norm)
    folded = cut.of(determinants <= 0)
    if folded.any():
        axes.imshow(
            np.ma.masked_where(~folded, folded),
            origin="upper" if cut.axis is None else "lower",
            cmap="gray",
            vmin=1,
            vmax=2,
            aspect=axes.get_aspect(),
            interpolation="nearest",
        )
    share = float((determinants <= 0).mean())
    axes.set_title(f"Jacobian, {determinants.min():.2f} to {determinants.max():.2f}\nfolded {share:.3%}")
    figure.colorbar(shown, ax=axes, shrink=0.7)


def _displacement(figure: Figure, axes: Any, flow: Array32, cut: Cut) -> None:
    scale = np.array(cut.spacing).reshape(-1, *[1] * (flow.ndim - 1))
    length = np.sqrt(((flow * scale) ** 2).sum(axis=0))
    shown = cut.show(axes, length, cmap="viridis")
    axes.set_title(f"displacement\nmean {length.mean():.2f}, most {length.max():.2f}")
    figure.colorbar(shown, ax=axes, shrink=0.7)


def _finish(figure: Figure, panels: Sequence[Any], cut: Cut, path: str | Path) -> None:
    for panel in panels:
        panel.set_xticks([])
        panel.set_yticks([])
    if cut.axis is not None:
        across, up = (_AXES[axis] for axis in cut.shown)
        figure.supxlabel(f"across: {across}; up: {up}; slice {cut.place}", fontsize="small")
    FigureCanvasAgg(figure)
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")
