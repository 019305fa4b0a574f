"""Registration of test patients: Dice of warped labels, and whether the flows fold and can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from diptych.checkpoints import load_method
from diptych.errors import ConfigError
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import encoders_of, torch_seed
from diptych.evaluation.per_patient import Scored, compare_units
from diptych.evaluation.table import Table
from diptych.method import Method
from diptych.study import Study
from diptych_medical.affine import affine_flow, register_affine
from diptych_medical.agreement import measure_names
from diptych_medical.evaluated import Images, images_of, labelled_images, patients_at
from diptych_medical.jacobian import determinants_central
from diptych_medical.pairs import Flows, draw_pairs, load_pair, pair_scores
from diptych_medical.pictures import Warped, cut_through, likeness_picture, middle_of, pair_picture
from diptych_medical.registered import dense
from diptych_medical.warp import Convention, warp

PART = "registration"
PRETRAINED = "pretrained"
METRICS = (
    "Dice",
    "folded, corners (%)",
    "round trip (voxels)",
    "folded, central (%)",
    "lowest determinant",
    "SD log determinant",
)


class Registers(Protocol):
    """The part of a method that finds flows, as :class:`diptych_medical.registered.Registration` does."""

    convention: Convention
    steps: int
    symmetric: bool

    def flows(self, a: Tensor, b: Tensor, /) -> tuple[Tensor, Tensor]:
        """Flows (n, d, *space) in voxels that carry a into the frame of b, and back."""


class Contender(NamedTuple):
    """One row: how its flows are found, once for each repeat."""

    name: str
    repeats: list[tuple[Flows, Convention]]


def registration(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    run_checkpoint: str | Path | None = None,
    displacement_checkpoint: str | Path | None = None,
    pairs: int = 20,
    same: tuple[str, ...] = (),
    affine_steps: int = 100,
    seeds: int = 2,
    draws: int = 2000,
    pictures: str | None = None,
    pictured: int = 3,
    point: tuple[int, ...] | None = None,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Register pairs of test patients: Dice of warped labels (nearest voxel), folding and round trip.

    Rows: pretrained, the same flows without integration (where there is one), a run that was trained on plain
    displacements (where one is given), random weights, a classical affine registration, and no registration.
    Both directions of a pair count. Images are cut or padded to the size of a training batch.

    Args:
        study: The data, with masks, and a method with a part "registration", such as GEMINI.
        encoder: The run's encoder; the flows come from the checkpoint, which holds an encoder too.
        run_checkpoint: last.ckpt of the run; the command line gives it.
        displacement_checkpoint: last.ckpt of a run of the same config that was trained with integrate: 0, for a
            row of its own.
        pairs: Number of pairs of test patients, each patient as often as the others where possible.
        same: Labels that both of a pair share.
        affine_steps: Steps of the affine registration at each resolution.
        seeds: Number of methods with random weights.
        draws: Number of bootstrap resamples of the test patients.
        pictures: Folder for pictures of the first pairs.
        pictured: How many pairs are pictured.
        point: The voxel, in array indices of the image as it is cut, whose likeness is pictured; by default the
            middle of its first structure.
        run_splits: splits.csv of the run, to check that none of its training patients is tested on.
        device: Where to compute: auto, cpu, cuda.
    """
    if min(pairs, seeds, affine_steps) < 1:
        raise ConfigError(
            f"pairs, seeds and affine_steps are at least 1, got {pairs}, {seeds} and {affine_steps}"
        )
    if len(encoders_of(encoder)) > 1:
        raise ConfigError("registration evaluates the flows of one run; leave out the others")
    if run_checkpoint is None:
        raise ConfigError(
            "registration needs run_checkpoint, the last.ckpt of the run: an exported encoder holds no deformer"
        )
    images = images_of(study)
    test = labelled_images(images, "test", run_splits)
    chosen = draw_pairs(images, test, pairs, same)
    where = choose_device(device)
    method = loaded(study, run_checkpoint, where)
    contenders = _learned(study, method, displacement_checkpoint, seeds, where)
    contenders += [
        Contender("affine only", [(_affine(affine_steps), "aligned")]),
        Contender("no registration", [(_identity, "aligned")]),
    ]
    metrics = [*METRICS, *measure_names(images.classes, ("Dice",))[1:]]
    rows = [_scored(images, chosen, each, metrics, where) for each in contenders]
    if pictures is not None:
        for pair in chosen[:pictured]:
            picture(Path(pictures), images, pair, method, point, where)
    owners = [(str(one), str(other)) for one, other in (patients_at(images, np.array(p)) for p in chosen)]
    return compare_units(
        rows,
        owners,
        title=f"registration of test patients: {', '.join(images.classes[1:])}",
        metrics=metrics,
        level="pair",
        draws=draws,
        notes=[
            f"{len(chosen)} pairs, both directions; intervals resample patients, a pair counting as often as both",
            "folded: voxels where the Jacobian's determinant is at most 0, by any of its corner differences or by "
            "central ones; round trip: mean distance after both flows",
            "the flows are those of the run's last checkpoint",
        ],
    )


def loaded(study: Study, checkpoint: str | Path | None, device: torch.device, seed: int = 0) -> Method:
    """A method in evaluation mode, with a checkpoint's weights or fresh ones.

    Raises ConfigError where it has no part that registers.
    """
    with torch_seed(seed):
        method = study.method(study.new_encoder())
    if PART not in method.parts:
        raise ConfigError(
            f"this run's method has no part {PART!r} (it has {', '.join(method.parts)}), so it gives no flows; "
            "registration is for methods such as diptych_medical.gemini.GEMINI"
        )
    if checkpoint is not None:
        load_method(method, checkpoint)
    return method.to(device).eval().requires_grad_(False)


def _learned(
    study: Study, method: Method, displacement: str | Path | None, seeds: int, device: torch.device
) -> list[Contender]:
    part = _part(method)
    convention, steps = part.convention, part.steps
    contenders = [Contender(PRETRAINED, [(part.flows, convention)])]
    if steps:
        contenders.append(Contender("pretrained, not integrated", [(_not_integrated(part), convention)]))
    if displacement is not None:
        plain = _part(loaded(study, displacement, device))
        plain.symmetric = False  # of velocities alone: displacements were learnt for each direction by itself
        contenders.append(Contender("trained on displacements", [(_not_integrated(plain), convention)]))
    untrained = [_part(loaded(study, None, device, seed)).flows for seed in range(seeds)]
    return [*contenders, Contender("random weights", [(flows, convention) for flows in untrained])]


def _part(method: Method) -> Registers:
    return cast(Registers, method.parts[PART])


def _not_integrated(part: Registers) -> Flows:
    """The field of a part taken as the displacement itself."""

    def flows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        steps, part.steps = part.steps, 0
        try:
            return part.flows(a, b)
        finally:
            part.steps = steps

    return flows


def _affine(steps: int) -> Flows:
    def flows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # it descends by gradients
            there, back = (register_affine(*each, steps=steps) for each in ((b, a), (a, b)))
        return affine_flow(there.detach(), a.shape[2:]), affine_flow(back.detach(), a.shape[2:])

    return flows


def _identity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    still = torch.zeros(len(a), a.ndim - 2, *a.shape[2:], device=a.device)
    return still, still


def _scored(
    images: Images,
    pairs: Sequence[tuple[int, int]],
    contender: Contender,
    metrics: Sequence[str],
    device: torch.device,
) -> Scored:
    found = [
        [pair_scores(images, pair, flows, convention, device) for pair in pairs]
        for flows, convention in contender.repeats
    ]
    return Scored(
        name=contender.name,
        scores={metric: np.array([[each[metric] for each in row] for row in found]) for metric in metrics},
    )


def picture(
    folder: Path,
    images: Images,
    pair: tuple[int, int],
    method: Method,
    point: tuple[int, ...] | None,
    device: torch.device,
) -> None:
    """Two pictures of a pair: the second image with the first warped onto it, and what is like a voxel of it."""
    x, masks = load_pair(images, pair, device)
    part = _part(method)
    with torch.inference_mode():
        flow, _ = part.flows(x[:1], x[1:])
        moved = warp(x[:1], flow, convention=part.convention)
        labels = warp(masks[:1, None].clamp_min(0), flow, mode="nearest", convention=part.convention)
        determinants = determinants_central(flow)
        features = dense(method.encoder, x).float().cpu().numpy()
    shown, known = x[:, 0].cpu().numpy(), masks.cpu().numpy()
    space = shown.shape[1:]
    chosen = point or middle_of(known[1], space)
    if len(chosen) != len(space) or any(not 0 <= p < size for p, size in zip(chosen, space, strict=True)):
        raise ConfigError(f"point: {chosen} lies outside the images, which are cut to {space} voxels")
    cut = cut_through(chosen, images.spacing(pair[1]))
    keys = images.samples.ids["recording"]
    stem = f"{keys.iloc[pair[1]]}-{keys.iloc[pair[0]]}"
    warped = Warped(
        image=shown[1],
        partner=shown[0],
        warped=moved[0, 0].cpu().numpy(),
        flow=flow[0].cpu().numpy(),
        determinants=determinants[0].cpu().numpy(),
        labels=(known[1], known[0], labels[0, 0].cpu().numpy()),
    )
    pair_picture(folder / f"{stem}-warped.png", warped, cut)
    likeness_picture(
        folder / f"{stem}-likeness.png", (shown[1], shown[0]), (features[1], features[0]), chosen, cut
    )
