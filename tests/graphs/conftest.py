"""Lets these tests import the modules beside them, and torch-geometric, which warns of itself on import."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
    import torch_geometric.nn  # noqa: F401
