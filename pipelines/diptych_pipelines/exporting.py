"""``diptych DOMAIN export``: the encoder of a run for code without Diptych."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from diptych.errors import ConfigError
from diptych.settings.plans import build, plan_of_run, trained_encoder
from diptych_pipelines.commands import Call


def export(call: Call, out: str, *, run: str) -> None:
    """Writes the encoder of a run for use without Diptych.

    Args:
        out: The file to write: .pt2, a program that torch.export.load reads, or .safetensors, the weights of
            the network inside the encoder under the names of its own library.
        run: The folder of a finished run.
    """
    from diptych.export import export_program, export_weights

    target = Path(out)
    if target.suffix not in (".pt2", ".safetensors"):
        raise ConfigError(f"expected a file that ends in .pt2 or .safetensors, came {out!r}")
    study = build(plan_of_run(call.domain, Path(run), call.overrides))
    encoder = trained_encoder(study, Path(run))
    if target.suffix == ".safetensors":
        print(f"weights of {export_weights(encoder, target)}", file=sys.stderr)
    else:
        indices = np.arange(min(2, len(study.samples)), dtype=np.int64)
        view = next(iter(study.plain(indices))).views[0]
        axes = export_program(encoder, view, target)
        print(f"takes float32 of shape ({', '.join(axes)})", file=sys.stderr)
    print(target)
