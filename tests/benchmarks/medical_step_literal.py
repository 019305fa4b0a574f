"""GEMINI's networks and training step, typed in as they stand: the yardstick of ``medical_step.py``, and a text to
learn the method from.

The released model: one U-Net for both images, a deformer that is run once per direction, a restoring head, and two
optimiser steps a batch. Images go through one after the other, every concatenation is made, every activation is
kept. The losses are those of ``medical_literal.py``.

Letters: n pairs, c channels, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from medical_literal import Pair, literal_gss, literal_ncc, literal_smoothness, literal_warp
from torch import Tensor, nn
from torch.nn import functional


def conv_norm_act(inputs: int, outputs: int, dims: int, groups: int | None = None) -> nn.Sequential:
    """Convolution of 3, group norm with 8 channels a group, LeakyReLU of slope 0.2."""
    conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, outputs, 3, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(groups or outputs // 8, outputs), nn.LeakyReLU(0.2))


def double(inputs: int, outputs: int, dims: int) -> nn.Sequential:
    return nn.Sequential(conv_norm_act(inputs, outputs, dims), conv_norm_act(outputs, outputs, dims))


def doubled(x: Tensor) -> Tensor:
    """Twice the size: 3D trilinear between corners, 2D bilinear between voxel centres."""
    if x.ndim == 5:
        return functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    return functional.max_pool3d(x, 2) if x.ndim == 5 else functional.max_pool2d(x, 2)


def padded(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Zeros around x up to a multiple of every axis, the smaller half in front; and where x lies in it."""
    missing = [-size % multiple for size in x.shape[2:]]
    sides = [side for total in reversed(missing) for side in (total // 2, total - total // 2)]
    inner = tuple(
        slice(total // 2, total // 2 + size) for total, size in zip(missing, x.shape[2:], strict=True)
    )
    return functional.pad(x, sides), (slice(None), slice(None), *inner)


class LiteralUNet(nn.Module):
    """Images to features of 32 channels at every voxel."""

    def __init__(self, channels: int, dims: int, widths: tuple[int, ...] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.inc = double(channels, widths[0], dims)
        self.downs = nn.ModuleList(double(a, b, dims) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(
            double(a + b, a, dims) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.multiple = 2 ** (len(widths) - 1)

    def forward(self, x: Tensor) -> Tensor:
        x, inner = padded(x, self.multiple)
        levels = [self.inc(x)]
        for down in self.downs:
            levels.append(down(halved(levels[-1])))
        x = levels.pop()
        for up in self.ups:
            x = up(torch.cat([levels.pop(), doubled(x)], dim=1))
        return x[inner]


class LiteralDeformer(nn.Module):
    """Features of two images to a flow in voxels that carries the first into the frame of the second."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.c1 = conv_norm_act(2 * width, 32, dims)
        self.c2 = conv_norm_act(32, 64, dims)
        self.c3 = conv_norm_act(64, 64, dims)
        self.c4 = conv_norm_act(128, 64, dims)
        self.c5 = conv_norm_act(96, 32, dims)
        self.flow = (nn.Conv2d if dims == 2 else nn.Conv3d)(32, dims, 3, padding=1)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        x, inner = padded(torch.cat([source, target], dim=1), 4)
        c1 = self.c1(x)
        c2 = self.c2(halved(c1))
        c3 = self.c3(halved(c2))
        c4 = self.c4(torch.cat([doubled(c3), c2], dim=1))
        c5 = self.c5(torch.cat([doubled(c4), c1], dim=1))
        return self.flow(c5)[inner]


class LiteralGemini(nn.Module):
    """U-Net, deformer and restoring head, Kaiming-initialised, with the terms of both phases."""

    def __init__(
        self, channels: int, dims: int, outputs: int = 1, widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.unet = LiteralUNet(channels, dims, widths)
        self.deformer = LiteralDeformer(widths[0], dims)
        self.restorer = nn.Sequential(conv_norm_act(widths[0], 16, dims, groups=4), conv(16, outputs, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)

    def align(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """The three terms of the first phase, both directions summed, without their weights."""
        features_a, features_b = self.unet(a), self.unet(b)
        flow_ab, flow_ba = self.deformer(features_a, features_b), self.deformer(features_b, features_a)
        pair = Pair(a, b, features_a, features_b, flow_ab, flow_ba)
        return literal_terms(pair)

    def restore(self, corrupted: Tensor, a: Tensor) -> Tensor:
        """The second phase of MIP: mean squared error of the restored image."""
        return ((self.restorer(self.unet(corrupted)) - a) ** 2).mean()

    def segment(self, image: Tensor, onehot: Tensor) -> Tensor:
        """The second phase of Semi: cross-entropy and Dice. 3D: softmax over classes; 2D: a sigmoid for each."""
        logits = self.restorer(self.unet(image))
        if logits.ndim == 5:
            p = logits.softmax(1)
            entropy = -(onehot * (p + 1e-6).log()).mean()
        else:
            p = logits.sigmoid()
            entropy = functional.binary_cross_entropy(p, onehot)
        over = tuple(range(2, p.ndim))
        overlap = 2 * (onehot * p).sum(over) + 1
        dice = 1 - (overlap / ((onehot**2).sum(over) + (p**2).sum(over) + 1)).mean()
        return entropy + dice


def literal_terms(pair: Pair) -> dict[str, Tensor]:
    """Smoothness, geometric semantic similarity and image similarity, each the sum of both directions."""
    smooth = literal_smoothness(pair.flow_ab) + literal_smoothness(pair.flow_ba)
    similarity, semantic = torch.zeros(()), torch.zeros(())
    directions = [
        (pair.a, pair.b, pair.features_a, pair.features_b, pair.flow_ab),
        (pair.b, pair.a, pair.features_b, pair.features_a, pair.flow_ba),
    ]
    for moving, fixed, moving_features, fixed_features, flow in directions:
        mask = literal_warp(torch.ones_like(moving), flow, "nearest").detach()
        similarity = similarity + literal_ncc(literal_warp(moving, flow), fixed, mask)
        fixed_correspondence = literal_warp(moving_features, flow.detach())
        semantic = semantic + 0.1 * literal_gss(fixed_correspondence, fixed_features, mask)
        fixed_values = literal_warp(moving_features.detach(), flow)
        semantic = semantic + literal_gss(fixed_values, fixed_features.detach(), mask)
    return {"smoothness": smooth, "similarity": semantic, "image": similarity}


WEIGHTS = {"smoothness": 0.4, "similarity": 0.8, "image": 1.0}


class LiteralStep:
    """The two phases of a MIP step, each with its own Adam."""

    def __init__(self, network: LiteralGemini, rate: float = 1e-4) -> None:
        self.network = network
        self.aligning = torch.optim.Adam(
            [*network.unet.parameters(), *network.deformer.parameters()], lr=rate
        )
        self.restoring = torch.optim.Adam(
            [*network.unet.parameters(), *network.restorer.parameters()], lr=rate
        )

    def __call__(self, a: Tensor, b: Tensor, corrupted: Tensor) -> None:
        terms = self.network.align(a, b)
        self.aligning.zero_grad()
        torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum().backward()
        self.aligning.step()
        self.restoring.zero_grad()
        (100 * self.network.restore(corrupted, a)).backward()
        self.restoring.step()
