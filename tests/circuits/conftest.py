"""Lets the tests of circuits import the modules beside them, and torch-geometric, whose own code is deprecated."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

with warnings.catch_warnings():
    # torch-geometric 2.8 scripts a class as it is imported, which torch 2.13 warns of; no call of ours does.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    import torch_geometric.nn  # noqa: F401
