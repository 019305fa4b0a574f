"""Labelled voxels and the small classifiers that are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.evaluation.frozen import torch_seed
from diptych_medical.evaluated import Labels

STRUCTURES = 0.5  # share of an image's drawn voxels that may be taken from its structures
MOST_FOR_TREES = 50_000  # voxels; more make the trees slow and hardly better
ROUNDS, RATE = 50, 0.2  # of boosting
# Added to a leaf's curvature. Without it leaves of a small structure, whose probability is near 0 at first, take steps
# so long that boosting does not come back: on simulated volumes Dice is 0.00 for 0.92.
RIDGE = 1.0
BLOCK = 65_536  # voxels whose features are held in float64 at once


class Drawn(NamedTuple):
    """Voxels of one image, m of them, and how many voxels each stands for."""

    at: NDArray[np.int64]  # (m, d) array indices
    labels: Labels  # (m,)
    weights: NDArray[np.float64]  # (m,)


class Voxels(NamedTuple):
    """Features of labelled voxels of several images, m of them."""

    features: Tensor  # (m, width), float16 or float32
    labels: Tensor  # (m,) int64
    weights: Tensor  # (m,) float64: how many voxels each stands for


def draw_voxels(mask: Labels, count: int, seed: int) -> Drawn:
    """At most ``count`` labelled voxels of an image.

    Up to half of them come from the structures, so that small ones are seen; each drawn voxel says how many
    it stands for, so that the true shares of the classes are kept.
    """
    generator = np.random.default_rng(seed)
    flat = mask.ravel()
    inner, outer = np.flatnonzero(flat > 0), np.flatnonzero(flat == 0)
    first = min(len(inner), max(round(STRUCTURES * count), count - len(outer)))
    second = min(len(outer), count - first)
    chosen = [generator.choice(inner, first, replace=False), generator.choice(outer, second, replace=False)]
    weights = [np.full(first, len(inner) / max(1, first)), np.full(second, len(outer) / max(1, second))]
    places = np.concatenate(chosen)
    at = np.stack(np.unravel_index(places, mask.shape), axis=1).astype(np.int64)
    return Drawn(at, flat[places], np.concatenate(weights))


def joined(parts: Sequence[tuple[Tensor, Drawn]]) -> Voxels:
    """The voxels of several images, with their features (m, width)."""
    return Voxels(
        torch.cat([features for features, _ in parts]),
        torch.from_numpy(np.concatenate([drawn.labels for _, drawn in parts])),
        torch.from_numpy(np.concatenate([drawn.weights for _, drawn in parts])),
    )


def fit_head(
    voxels: Voxels,
    classes: int,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    device: torch.device,
) -> nn.Linear:
    """A linear map from features to classes, trained by cross-entropy and Dice on batches of voxels.

    Features are standardised by the training voxels; the returned map takes them as they are. Batches are
    drawn with the shares of the classes in whole images. AdamW, its rate falling to 0 along a cosine.

    Args:
        voxels: What is known.
        classes: Number of classes, background included.
        steps: Number of batches.
        batch: Voxels of a batch.
        rate: Learning rate at the start.
        seed: Of the batches.
        device: Where to train; returned on the CPU.
    """
    features, labels = voxels.features.to(device), voxels.labels.to(device)
    shares = voxels.weights.to(device) / voxels.weights.sum()
    mean, spread = _moments(features, shares)
    centre, scale = mean.float(), 1 / spread.float()
    edges = shares.cumsum(0)
    with torch_seed(seed):
        head = nn.Linear(features.shape[1], classes).to(device)
        nn.init.zeros_(head.weight)  # all classes alike: no draw of weights starts in a bad place
        nn.init.zeros_(head.bias)
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        for _ in range(steps):
            drawn = torch.rand(batch, device=device, dtype=torch.float64) * edges[-1]
            rows = torch.searchsorted(edges, drawn).clamp_max(len(labels) - 1)
            optimizer.zero_grad(set_to_none=True)
            logits = head((features[rows].float() - centre) * scale)
            torch.autograd.backward(overlap_loss(logits.T[None], labels[rows][None]))
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.sub_((head.weight.double() @ mean).float())
    return head.cpu()


def _moments(features: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of features (m, width) with shares (m,), float64, some voxels at a time."""
    blocks = list(zip(torch.split(features, BLOCK), torch.split(shares, BLOCK), strict=True))
    mean = torch.stack([share @ block.double() for block, share in blocks]).sum(0)
    variance = torch.stack([share @ (block.double() - mean) ** 2 for block, share in blocks]).sum(0)
    # What varies by less than the stored type resolves is rounding, which is not to be blown up.
    least = torch.finfo(features.dtype).eps * mean.abs()
    return mean, torch.maximum(variance.sqrt(), least).clamp_min(1e-6)


def overlap_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus MONAI's Dice loss of the structures, of the labelled voxels alone.

    MONAI's own DiceCELoss knows no unlabelled voxels; where all are labelled, this is its value with
    ``include_background=False, batch=True``: the background's Dice is near 1 and would hide that a structure is
    never predicted, and a crop often lacks a class.

    Args:
        logits: (n, classes, *space).
        labels: (n, *space), -1 where unlabelled.
    """
    known = (labels >= 0).unsqueeze(1)
    wanted = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1) * known
    overlap: Tensor = DiceLoss(include_background=False, batch=True)(
        logits.float().softmax(1) * known, wanted.float()
    )
    entropy = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
    return overlap + entropy / known.sum().clamp_min(1)


class VoxelClassifier:
    """Gradient-boosted trees on hand-made features of single voxels: the baseline without a network."""

    def __init__(self, voxels: Voxels, classes: int, seed: int) -> None:
        """Fit at once, on at most ``MOST_FOR_TREES`` of the voxels.

        Args:
            voxels: What is known.
            classes: Number of classes, background included.
            seed: Of the draw of voxels and of the trees.
        """
        self.classes = classes
        generator = np.random.default_rng(seed)
        rows = generator.permutation(len(voxels.labels))[:MOST_FOR_TREES]
        self.known = np.unique(voxels.labels.numpy()[rows])
        self._trees: Any = HistGradientBoostingClassifier(
            max_iter=ROUNDS,
            learning_rate=RATE,
            l2_regularization=RIDGE,
            early_stopping=False,
            random_state=seed,
        )
        weights = voxels.weights.numpy()[rows]
        if len(self.known) > 1:  # a single class needs no trees
            self._trees.fit(
                voxels.features.numpy()[rows],
                voxels.labels.numpy()[rows],
                sample_weight=weights / weights.mean(),  # so that RIDGE means the same for images of any size
            )

    def predict(self, features: NDArray[np.float32]) -> Labels:
        """(k, *space) features of a whole image to (*space) numbers of classes."""
        if len(self.known) == 1:
            return np.full(features.shape[1:], self.known[0], dtype=np.int64)
        rows = features.reshape(len(features), -1).T
        found = self._trees.predict(np.ascontiguousarray(rows))
        return np.asarray(found, dtype=np.int64).reshape(features.shape[1:])
