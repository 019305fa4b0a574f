"""GEMINI's second phase: restore a corrupted image (MIP), or segment a labelled one with few labels (Semi).

Source: the released code of GEMINI (He et al. 2025, IEEE T-PAMI, doi 10.1109/TPAMI.2025.3540644).

Letters: n images, c channels, w width of features, k classes, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import DataError
from diptych.types import Views
from diptych_medical.corruption import Corruption
from diptych_medical.registered import dense, halves_of, labelled_of
from diptych_medical.spatial import Spatial
from diptych_medical.stages import ConvNorm

Output = Literal["softmax", "sigmoid"]
HIDDEN = 16  # channels of the head


class DenseHead(nn.Module):
    """Features to ``outputs`` channels at every voxel: a convolution of 3, group norm in 4 groups, LeakyReLU, one of 1.

    Its weights are ``enter`` (``conv`` and ``norm``) and ``leave``; 13,889 for 32 features and one channel in 3D.
    """

    def __init__(self, width: int, outputs: int, dims: int) -> None:
        super().__init__()
        self.enter = ConvNorm(width, HIDDEN, dims, groups=4)
        self.leave = (nn.Conv2d if dims == 2 else nn.Conv3d)(HIDDEN, outputs, 1)
        nn.init.kaiming_normal_(self.leave.weight)

    def forward(self, grid: Tensor) -> Tensor:
        """(n, width, *space) to (n, outputs, *space), in at least float32."""
        made: Tensor = self.leave(self.enter(grid))
        return made.to(torch.promote_types(made.dtype, torch.float32))


class Restored(NamedTuple):
    """Images (n, c, *space) and what was made of them once corrupted."""

    images: Tensor
    restored: Tensor


class Restore(nn.Module):
    """The first image of every pair, moved at random, corrupted, and restored from its features.

    The matrix is drawn anew, not that of the align phase: what one phase does needs nothing of the other.
    """

    def __init__(
        self, encoder: nn.Module, head: DenseHead, spatial: Spatial | None, corruption: Corruption
    ) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.spatial, self.corruption = spatial, corruption

    def forward(self, batch: Views) -> Restored:
        """The restored images of a batch (a0, b0, a1, b1, ...)."""
        images = halves_of(batch, 2).chunk(2)[0]
        if self.spatial is not None:
            matrix = self.spatial.draw((len(images), *images.shape[2:]), images.device)
            images = self.spatial.apply(images, matrix)
        corrupted = self.corruption.apply(images, self.corruption.draw(images.shape, images.device))
        return Restored(images, self.head(dense(self.encoder, corrupted)))


class RestorationError(nn.Module):
    """The mean squared error of restored images."""

    def forward(self, online: Restored, target: object, batch: Views) -> Tensor:
        """The term of restored images."""
        return functional.mse_loss(online.restored, online.images)


class Segmented(NamedTuple):
    """Scores (n, k, *space) of classes and the right ones (n, *space), int64, -1 where unknown."""

    scores: Tensor
    labels: Tensor


class Segment(nn.Module):
    """The labelled image that follows each pair, moved at random with its mask, and segmented from its features."""

    def __init__(self, encoder: nn.Module, head: DenseHead, spatial: Spatial | None, classes: int) -> None:
        super().__init__()
        self.encoder, self.head, self.spatial, self.classes = encoder, head, spatial, classes
        self._checked = False

    def forward(self, batch: Views) -> Segmented:
        """The scores of the labelled images of a batch (a0, b0, l0, a1, ...), and their labels."""
        images, labels = labelled_of(batch)
        self._check(labels)
        if self.spatial is not None:
            matrix = self.spatial.draw((len(images), *images.shape[2:]), images.device)
            images = self.spatial.apply(images, matrix)
            # Shifted by 1, so that what comes from outside of the image is unknown, not background.
            moved = self.spatial.apply(labels[:, None] + 1, matrix, mode="nearest")
            labels = moved[:, 0] - 1
        return Segmented(self.head(dense(self.encoder, images)), labels)

    def _check(self, labels: Tensor) -> None:
        """Raise DataError for a label beyond the classes; on a GPU, which it stops, in the first batch alone."""
        if labels.device.type != "cpu" and self._checked:
            return
        self._checked = True
        if (largest := int(labels.max())) >= self.classes:
            raise DataError(
                f"a mask has class {largest}, counted from 0, but GEMINI has classes: {self.classes}; set it to the "
                "number of classes of the masks with the background"
            )


class CrossEntropy(nn.Module):
    """Mean over known voxels and classes of the cross-entropy; for "sigmoid" of a yes or no for every class.

    Args:
        output: one class a voxel, or any of them.
        guard: added to the probabilities of "softmax" before the logarithm. The released code has 1e-6, with which
            voxels that are wrong and sure of it get no gradient; 0 takes the logarithm exactly.
    """

    def __init__(self, output: Output, guard: float = 0.0) -> None:
        super().__init__()
        self.output: Output = output
        self.guard = guard

    def forward(self, online: Segmented, target: object, batch: Views) -> Tensor:
        """The term of segmented images; 0 where no voxel is known."""
        onehot, known = targets(online, self.output)
        if self.output == "sigmoid":
            losses = functional.binary_cross_entropy_with_logits(online.scores, onehot, reduction="none")
        elif self.guard:
            losses = -onehot * (online.scores.softmax(1) + self.guard).log()
        else:
            losses = -onehot * online.scores.log_softmax(1)
        classes = online.scores.shape[1]
        return (losses * known).sum() / (classes * known.sum()).clamp(min=1)


class DiceLoss(nn.Module):
    """1 - mean over images and classes of (2 sum(y p) + 1) / (sum(y^2) + sum(p^2) + 1), over known voxels."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output: Output = output

    def forward(self, online: Segmented, target: object, batch: Views) -> Tensor:
        """The term of segmented images."""
        onehot, known = targets(online, self.output)
        p = online.scores.softmax(1) if self.output == "softmax" else online.scores.sigmoid()
        p = (p * known).flatten(2)
        y = (onehot * known).flatten(2)
        return 1 - ((2 * (y * p).sum(2) + 1) / (y.square().sum(2) + p.square().sum(2) + 1)).mean()


def targets(segmented: Segmented, output: Output) -> tuple[Tensor, Tensor]:
    """Zeros and ones (n, k, *space) of the right classes, without the background for "sigmoid", and what is known.

    Raises:
        DataError: labels of another size than the scores.
    """
    scores, labels = segmented
    if labels.shape != (len(scores), *scores.shape[2:]):
        raise DataError(
            f"labels {tuple(labels.shape)} do not fit scores {tuple(scores.shape)}; masks must be as large as images"
        )
    background = 1 if output == "sigmoid" else 0
    classes = torch.arange(background, background + scores.shape[1], device=labels.device)
    onehot = labels[:, None] == classes.view(-1, *[1] * (labels.ndim - 1))
    return onehot.to(scores.dtype), (labels >= 0)[:, None].to(scores.dtype)
