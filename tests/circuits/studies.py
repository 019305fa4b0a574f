"""Small studies of real netlists: the 24 that the package ships."""

from pathlib import Path

import torch

import diptych_circuits
from diptych.data.identity import Split
from diptych_circuits.encoder import CircuitEncoder
from diptych_circuits.recipe import Loading, build
from diptych_circuits.settings import Netlist, Source
from diptych_circuits.study import CircuitStudy

EXAMPLES = Path(diptych_circuits.__file__).parent / "examples"


def make_study(cache_folder, path=EXAMPLES, **netlist) -> CircuitStudy:
    """A study with an encoder of width 16."""
    return build(
        data=Source(path=str(path)),
        netlist=Netlist(**netlist),
        scaling="logarithm",
        split=Split(train=0.5, validation=0.2, test=0.3),
        loader=Loading(cache=str(cache_folder), readers=1),
        encoder=lambda: CircuitEncoder(width=16, layers=2, dropout=0.0),
        method=None,
        optimizer=None,
    )


def make_encoder(seed=0) -> CircuitEncoder:
    """An encoder that was pretrained on nothing."""
    torch.manual_seed(seed)
    return CircuitEncoder(width=16, layers=2, dropout=0.0)


QUICK = {"seeds": 1, "epochs": 2, "draws": 50, "fractions": (1.0,), "device": "cpu"}
