"""The functional-group prompt of KANO (Fang et al. 2023, "Knowledge graph-enhanced molecular contrastive learning with
functional prompt"), for any encoder of molecules.

A learned row of its own and the rows of the molecule's functional groups attend to each other; what the learned row
becomes is added to the features of every atom before the encoder's first layer. Attention stays within a molecule, so
what a molecule gets does not depend on the others of its batch.

Letters: n molecules, g groups, d width of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.features import Inputs
from diptych.recipes import width_of
from diptych.types import Encoded
from diptych_molecules.groups import GROUPS, groups_of


class GroupAttention(nn.Module):
    """One head of attention within each molecule, added to its input, then layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        """(n, g + 1, d) to the same; only rows that are ``present`` (n, g + 1) are attended to."""
        query, key, value = self.query(rows), self.key(rows), self.value(rows)
        scores = query @ key.transpose(1, 2) / rows.shape[2] ** 0.5
        shares = scores.masked_fill(~present[:, None], -torch.inf).softmax(2)
        normed: Tensor = self.norm(rows + shares @ value)
        return normed


class FunctionalPrompt(nn.Module):
    """An encoder whose atoms are told which functional groups their molecule has.

    Args:
        encoder: makes the encoder; its first table or layer of atom features is what the prompt is added to.
        width: d.
        layers: of attention.
        weight: of the prompt at the start; it is trained.

    Raises:
        ConfigError: the encoder has no :class:`diptych.graphs.features.Inputs` to add to, or a size below 1.
    """

    def __init__(
        self, encoder: Callable[[], nn.Module], *, width: int = 32, layers: int = 2, weight: float = 0.1
    ) -> None:
        super().__init__()
        if min(width, layers) < 1:
            raise ConfigError(f"a prompt needs a width and layers of at least 1, got {width} and {layers}")
        self.encoder = encoder()
        inputs = next((each for each in self.encoder.modules() if isinstance(each, Inputs)), None)
        if inputs is None:
            raise ConfigError(
                f"a prompt is added to an encoder's table of atom features, but {type(self.encoder).__name__} has "
                "none (diptych.graphs.features.Inputs); use GCN, KMPNN, GIN or Network"
            )
        self._inputs = (inputs,)  # in a tuple: it is registered within the encoder
        self.groups = nn.Embedding(len(GROUPS) + 1, width)  # the last row is the learned one
        self.attention = nn.ModuleList(GroupAttention(width) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(width, inputs.width), nn.LayerNorm(inputs.width))
        self.weight = nn.Parameter(torch.tensor(weight))
        self.width = width_of(self.encoder)
        self.parts_width = getattr(self.encoder, "parts_width", self.width)

    def prompt(self, present: Tensor) -> Tensor:
        """What is added to the atoms of molecules (n, width of an atom) that have the groups ``present`` (n, g)."""
        rows = self.groups.weight.expand(len(present), -1, -1)
        own = torch.ones_like(present[:, :1])
        for attend in self.attention:
            rows = attend(rows, torch.cat([present, own], dim=1))
        prompted: Tensor = self.weight * self.out(rows[:, -1])
        return prompted

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of molecules."""
        added = self.prompt(groups_of(batch))[batch.graph]
        handle = self._inputs[0].register_forward_hook(lambda _module, _given, rows: rows + added)
        try:
            encoded: Encoded = self.encoder(batch)
        finally:
            handle.remove()
        return encoded
