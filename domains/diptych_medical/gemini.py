"""GEMINI: features that agree at corresponding places of two patients' images, along a learned deformation.

Source: He et al. 2025, "Homeomorphism Prior for False Positive and Negative Problem in Medical Image Dense
Contrastive Representation Learning" (IEEE T-PAMI, doi 10.1109/TPAMI.2025.3540644), as the released code computes it
(``convention="official"``, ``integrate=0``), and with what that code lacks: flows that hardly fold and can be undone.

A step has two phases, each with its own optimiser: align the images of pairs, then restore a corrupted image (MIP)
or segment a labelled one (Semi).

Letters: n pairs or images, c channels, w width of features, k classes, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diptych.augment import check_range
from diptych.errors import ConfigError
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import grid_width_of
from diptych.types import Views
from diptych_medical.affine import AffineHead
from diptych_medical.correspondence import warped_similarity
from diptych_medical.corruption import Corruption
from diptych_medical.deformer import Deformer
from diptych_medical.jacobian import folding_penalty, inverse_consistency
from diptych_medical.registered import AlignPairs, Registered, Registration, partners
from diptych_medical.second_phase import (
    CrossEntropy,
    DenseHead,
    DiceLoss,
    Output,
    RestorationError,
    Restore,
    Segment,
)
from diptych_medical.similarity import local_ncc, smoothness
from diptych_medical.spatial import Spatial
from diptych_medical.warp import Convention, warp

MOVES = Spatial(rotation=(20.0,), scale=(0.75, 1.25))  # as released
CORRUPTION = Corruption()
RELEASED_GUARD = 1e-6  # of the logarithm of probabilities


class Smoothness(nn.Module):
    """How unsmooth the fields of both directions are: the sum of :func:`diptych_medical.similarity.smoothness`."""

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The term of registered pairs."""
        return 2 * smoothness(online.fields)  # a mean over both directions, twice


class FeatureSimilarity(nn.Module):
    """Geometric semantic similarity: features of corresponding voxels agree, and flows lead to where they do.

    Args:
        feature_weight: of the gradient of the features where the flow says they correspond.
        convention: how places are read.
    """

    def __init__(self, feature_weight: float, convention: Convention) -> None:
        super().__init__()
        self.feature_weight = feature_weight
        self.convention: Convention = convention

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The term of registered pairs, both directions summed."""
        term: Tensor = warped_similarity(
            online.features,
            online.flows,
            online.masks,
            feature_weight=self.feature_weight,
            convention=self.convention,
        )
        return term


class ImageSimilarity(nn.Module):
    """Local squared correlation of each warped image with its partner, where the warp reads within the image.

    Args:
        window: voxels of the window along every axis.
        convention: how places are read.
    """

    def __init__(self, window: int, convention: Convention) -> None:
        super().__init__()
        self.window = window
        self.convention: Convention = convention

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The term of registered pairs, both directions summed."""
        moved = warp(online.images, online.flows, convention=self.convention)
        directions = zip(
            *(each.chunk(2) for each in (partners(online.images), moved, online.masks)), strict=True
        )
        losses = [local_ncc(fixed, moving, mask, window=self.window) for fixed, moving, mask in directions]
        return torch.stack(losses).sum()


class InverseConsistency(nn.Module):
    """How far voxels end from where they began after both flows, squared."""

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The term of registered pairs."""
        return inverse_consistency(*online.flows.chunk(2))


class FoldingPenalty(nn.Module):
    """How much the flows turn space inside out."""

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The term of registered pairs, both directions summed."""
        return 2 * folding_penalty(online.flows)


class Outside(nn.Module):
    """The share of voxels whose place lies outside of the partner. Watched: the masked terms do not mind it."""

    def forward(self, online: Registered, target: object, batch: Views) -> Tensor:
        """The share of registered pairs' voxels."""
        return 1 - online.masks.mean()


@dataclass(frozen=True, kw_only=True)
class GEMINI:
    """Pretrain an encoder whose map has the size of its image, by registering pairs of patients.

    Terms of the align phase: ``smoothness``, ``similarity`` (of features), ``image`` (local correlation),
    ``inverse`` and ``folding`` where they have a weight, and ``outside``, which is only watched. Of the second phase:
    ``restoration``, or ``cross_entropy`` and ``dice``. All but the released terms are in voxels of the flow.

    Parts: ``encoder``; ``registration``, whose ``flows(a, b)`` register images; ``restorer`` or ``segmenter``.

    Args:
        variant: what the second phase does: restore a corrupted image ("mip"), or segment a labelled one ("semi").
        convention: "aligned" reads voxels where the flow says, so that a flow of 0 is the identity; "official" as
            the released code does, for its weights and figures, with integrate 0; its first flows and its guard of
            logarithms go with it.
        integrate: squarings that make a flow of the deformer's field as a velocity (7 is usual): it hardly folds and
            can be undone. 0 takes the field as the displacement itself, as released.
        symmetric: makes the velocity of b to a minus that of a to b, so that the two flows undo each other; by default
            with integrate and without affine. Without it training may first learn to shift all images by half a
            voxel whatever they show: interpolating blurs them, and blurred images correlate better.
        affine: finds a matrix before the deformation, as in GVSL (He et al. 2023), whose released head got no
            gradient.
        smooth: weight of the smoothness of the field; 0.4 as released. On brain MR, 1 leaves a tenth of the folds or
            less and warps labels no worse.
        similarity: weight of the geometric semantic similarity of features.
        feature_weight: within it, weight of the gradient of the features; that of the flow is 1.
        similarity_width: channels that features are projected to before they are compared; 0 compares themselves.
        centre: takes each image's mean feature off before features are compared. Without it, as published, a
            direction that all features share makes any two alike, which a short training finds first.
        image: weight of the local correlation of images.
        window: voxels of its window along every axis.
        inverse: weight of inverse consistency.
        folding: weight of the penalty on negative Jacobian determinants.
        second: weight of the second phase's terms.
        classes: with variant semi, the classes of the masks, background among them.
        output: with variant semi, one class a voxel ("softmax"), or a yes or no for each class but the background
            ("sigmoid"; as released for 2D).
        spatial: the random matrix that moves a pair alike, and the image of the second phase; None for none.
        corruption: what is restored, with variant mip.
        joint: one optimiser and one step for both phases: cheaper, but not the published algorithm.
        checkpointing: makes the deformer's stages of full size again in the backward pass: less memory, more time.
            The encoder has its own.

    Raises:
        ConfigError: settings out of range or that do not go together.
    """

    variant: Literal["mip", "semi"] = "mip"
    convention: Convention = "aligned"
    integrate: int = 7
    symmetric: bool | None = None
    affine: bool = False
    smooth: float = 1.0
    similarity: float = 0.8
    feature_weight: float = 0.1
    similarity_width: int = 0
    centre: bool = False
    image: float = 1.0
    window: int = 9
    inverse: float = 0.0
    folding: float = 0.0
    second: float = 100.0
    classes: int = 0
    output: Output = "softmax"
    spatial: Spatial | None = MOVES
    corruption: Corruption = CORRUPTION
    joint: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("smooth", "similarity", "feature_weight", "image", "inverse", "folding", "second"):
            check_range(f"GEMINI's weight {name}", getattr(self, name), high=float("inf"))
        if self.variant not in ("mip", "semi"):
            raise ConfigError(f"GEMINI's variant must be mip or semi, got {self.variant!r}")
        if self.convention not in ("aligned", "official"):
            raise ConfigError(f"GEMINI's convention must be aligned or official, got {self.convention!r}")
        if self.output not in ("softmax", "sigmoid"):
            raise ConfigError(f"GEMINI's output must be softmax or sigmoid, got {self.output!r}")
        if min(self.integrate, self.similarity_width) < 0:
            raise ConfigError(
                f"GEMINI's integrate and similarity_width are at least 0, got {self.integrate} and "
                f"{self.similarity_width}"
            )
        if self.window < 1 or self.window % 2 == 0:
            raise ConfigError(f"GEMINI's window is an odd number of voxels, got {self.window}")
        if (self.variant == "semi") != (self.classes >= 2):
            raise ConfigError(
                "classes is the number of classes of the masks with the background, at least 2 for variant semi, "
                f"and 0 for variant mip, which sees none; got {self.classes} for {self.variant}"
            )
        self._check_flows()

    def _check_flows(self) -> None:
        further = [name for name in ("integrate", "affine", "inverse", "folding") if getattr(self, name)]
        if self.convention == "official" and further:
            raise ConfigError(
                "the official convention reads other places than the flow says, so that flows can be neither joined "
                f"nor undone; set {' and '.join(f'{name}: 0' for name in further)}, or convention: aligned"
            )
        if self.symmetric and (self.integrate == 0 or self.affine):
            raise ConfigError(
                "symmetric is for velocities alone: set integrate to 7 and affine to false, or symmetric to false"
            )

    @property
    def _symmetric(self) -> bool:
        return self.integrate > 0 and not self.affine if self.symmetric is None else self.symmetric

    @property
    def pairs(self) -> bool:
        """Batches are pairs of images of different patients."""
        return True

    @property
    def labelled(self) -> bool:
        """Every pair is followed by an image with a mask."""
        return self.variant == "semi"

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``.

        Raises:
            ConfigError: the encoder does not say how many dimensions and channels its images have.
        """
        dims, channels = described(encoder, "dims"), described(encoder, "channels")
        registration = self._registration(encoder, dims)
        align = Pass(
            online=AlignPairs(registration, self.spatial, 3 if self.labelled else 2), terms=self._terms()
        )
        foreground = self.classes - 1 if self.output == "sigmoid" else self.classes
        head = DenseHead(grid_width_of(encoder), foreground if self.labelled else channels, dims)
        name, second = self._second(encoder, head)
        parts = {"encoder": encoder, "registration": registration, name: head}
        if self.joint:
            phases = [
                Phase(
                    name="gemini",
                    passes=[align, second],
                    trains=[encoder, registration, head],
                    optimizer=optimizer,
                    schedule=schedule,
                )
            ]
            return Method(parts, phases, encoder)
        phases = [
            Phase(
                name="align",
                passes=[align],
                trains=[encoder, registration],
                optimizer=optimizer,
                schedule=schedule,
            ),
            Phase(
                name="segment" if self.labelled else "restore",
                passes=[second],
                trains=[encoder, head],
                optimizer=optimizer,
                schedule=schedule,
            ),
        ]
        return Method(parts, phases, encoder)

    def _registration(self, encoder: nn.Module, dims: int) -> Registration:
        width = grid_width_of(encoder)
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        return Registration(
            encoder,
            Deformer(width, dims, still=self.convention == "aligned", checkpointing=self.checkpointing),
            affine=AffineHead(width, 2 if dims == 2 else 3) if self.affine else None,
            projector=conv(width, self.similarity_width, 1) if self.similarity_width else None,
            centre=self.centre,
            convention=self.convention,
            steps=self.integrate,
            symmetric=self._symmetric,
        )

    def _terms(self) -> list[Term]:
        """The terms of the align phase; those without weight are left out, but for what is only watched."""
        similar = FeatureSimilarity(self.feature_weight, self.convention)
        terms = [
            Term(name="smoothness", objective=Smoothness(), weight=self.smooth),
            Term(name="similarity", objective=similar, weight=self.similarity),
            Term(name="image", objective=ImageSimilarity(self.window, self.convention), weight=self.image),
            Term(name="inverse", objective=InverseConsistency(), weight=self.inverse),
            Term(name="folding", objective=FoldingPenalty(), weight=self.folding),
        ]
        used = [term for term in terms if term.weight > 0]
        if not used:
            raise ConfigError(
                "GEMINI's align phase has no term with a weight above 0; set image or similarity"
            )
        return [*used, Term(name="outside", objective=Outside(), weight=0.0)]

    def _second(self, encoder: nn.Module, head: DenseHead) -> tuple[str, Pass]:
        """The part's name and the pass of the second phase."""
        if not self.labelled:
            term = Term(name="restoration", objective=RestorationError(), weight=self.second)
            return "restorer", Pass(
                online=Restore(encoder, head, self.spatial, self.corruption), terms=[term]
            )
        entropy = CrossEntropy(self.output, RELEASED_GUARD if self.convention == "official" else 0.0)
        terms = [
            Term(name="cross_entropy", objective=entropy, weight=self.second),
            Term(name="dice", objective=DiceLoss(self.output), weight=self.second),
        ]
        return "segmenter", Pass(online=Segment(encoder, head, self.spatial, self.classes), terms=terms)


def described(encoder: nn.Module, name: str) -> int:
    """The encoder's ``dims`` or ``channels``. Raises ConfigError when it does not have it."""
    value = getattr(encoder, name, None)
    if not isinstance(value, int):
        raise ConfigError(
            f"GEMINI needs an encoder that says its number of {name}; {type(encoder).__name__} has no {name}"
        )
    return value
