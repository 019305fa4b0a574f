"""A queue of earlier rows as further keys (MoCo: He et al. 2020, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diptych.distributed import gather_rows
from diptych.errors import ConfigError
from diptych.types import Rows


class Queue(nn.Module):
    """The last ``size`` rows of ``width``, first in, first out, with their ids; part of every checkpoint.

    Slots that were never filled are never compared: :meth:`rows` returns only what is there.
    """

    z: Tensor
    group: Tensor
    row: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise ConfigError(
                f"a queue needs a size and a width of at least 1, got size {size} and width {width}"
            )
        self.size = size
        self.register_buffer("z", torch.zeros(size, width))
        self.register_buffer("group", torch.full((size,), -1))
        self.register_buffer("row", torch.full((size,), -1))
        self._next = 0  # plain numbers, so that no step waits for the device to read them
        self._filled = 0

    def rows(self) -> Rows:
        """What the queue holds, (filled, width), as views of it: join or copy them before the next push."""
        return Rows(*(buffer[: self._filled] for buffer in (self.z, self.group, self.row)))

    def behind(self, rows: Rows) -> Rows:
        """``rows`` (n, width), followed by what the queue holds.

        Raises:
            ValueError: z is not (n, width of the queue).
        """
        self._check(rows)
        return Rows(*(torch.cat([new, old]) for new, old in zip(rows[:3], self.rows()[:3], strict=True)))

    def push(self, rows: Rows) -> None:
        """Add the rows of all processes in place of the oldest; of too many the last ``size`` stay.

        Raises:
            ValueError: z is not (n, width of the queue).
        """
        self.push_gathered(gather_rows(Rows(rows.z.detach(), rows.group, rows.row)))

    @torch.no_grad()
    def push_gathered(self, rows: Rows) -> None:
        """As :meth:`push`, for rows that are the same on every process already."""
        self._check(rows)
        dropped = max(0, len(rows.z) - self.size)
        count = len(rows.z) - dropped
        start = (self._next + dropped) % self.size
        head = min(count, self.size - start)
        for buffer, values in ((self.z, rows.z), (self.group, rows.group), (self.row, rows.row)):
            kept = values.detach()[dropped:].to(buffer.dtype)
            buffer[start : start + head] = kept[:head]
            buffer[: count - head] = kept[head:]
        self._next = (start + count) % self.size
        self._filled = min(self.size, self._filled + len(rows.z))

    def _check(self, rows: Rows) -> None:
        if rows.z.ndim != 2 or rows.z.shape[1] != self.z.shape[1]:
            raise ValueError(f"the queue holds rows (n, {self.z.shape[1]}), got {tuple(rows.z.shape)}")

    def get_extra_state(self) -> Tensor:
        """Where the next row goes and how many slots are filled, for ``state_dict``."""
        return torch.tensor([self._next, self._filled])

    def set_extra_state(self, state: Tensor) -> None:
        """Continue where :meth:`get_extra_state` left off."""
        self._next, self._filled = (int(number) for number in state.tolist())
