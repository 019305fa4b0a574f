"""Rows of unit length, the common ground of every loss that compares directions."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(z: Tensor) -> Tensor:
    """Half-precision rows as float32, others as they are: sums of exponentials need the digits."""
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def unit_rows(z: Tensor) -> Tensor:
    """Divide every row of ``z`` (*, width) by its length, in float32 or better.

    A row of zeros has no direction: it stays zero, and its gradient stays finite.
    """
    z = full_precision(z)
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / torch.where(length > 0, length, 1.0)
