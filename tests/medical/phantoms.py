"""A study of simulated volumes in files, read by the real recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import synthetic_images as synthetic
import torch

from diptych.data.identity import Split
from diptych_medical.recipe import ImageStudy, Loading, Simulation, build
from diptych_medical.settings import Imaging, Masks, Source


def phantoms(folder: Path, slices: Any = None, **others: Any) -> tuple[Path, ImageStudy]:
    """Simulated volumes, every second turned to left and back, through the real recipe."""
    study = build(
        data=Source(
            path=str(folder / "files"),
            include=["images/*.nii.gz"],
            names="simulated_(?P<case>.*)",
            patient="name:case",
        ),
        image=Imaging(dims=2 if slices else 3, slices=slices, every=5 if slices else 1),
        masks=Masks(files="masks/{record}.nii.gz", classes={"core": 1, "pocket": 2}),
        simulation=Simulation(patients=8, side=16),
        split=Split(salt="phantoms", train=0.5, validation=0.0, test=0.5),
        loader=Loading(cache=str(folder / "cache"), readers=1),
        encoder=others.get("encoder", lambda channels, dims: synthetic.Plain(dims)),
        method=others.get("method", synthetic.no_method),
        optimizer=torch.optim.AdamW,
    )
    return folder / "files", study
