"""Features that are compared may be centred, so that what all voxels share makes no two alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diptych.types import Encoded
from diptych_medical.correspondence import warped_similarity
from diptych_medical.deformer import Deformer
from diptych_medical.registered import Registration


class Shifted(nn.Module):
    """Noise of 8 channels for every image, far along one direction."""

    width = grid_width = 8

    def __init__(self, far: float) -> None:
        super().__init__()
        self.far = far

    def forward(self, images: Tensor) -> Encoded:
        torch.manual_seed(1)
        grid = torch.randn(len(images), 8, *images.shape[2:]) + self.far
        return Encoded(grid.flatten(2).mean(2), None, grid)


def compared(far: float, centre: bool) -> tuple[Tensor, Tensor]:
    """The features that are compared, and their similarity term with zero flows."""
    torch.manual_seed(0)
    registration = Registration(Shifted(far), Deformer(8, 3), centre=centre)
    registered = registration(torch.rand(2, 1, 8, 8, 8))
    still = torch.zeros_like(registered.flows)
    term = warped_similarity(
        registered.features,
        still,
        torch.ones_like(registered.masks),
        feature_weight=0.1,
        convention="aligned",
    )
    return registered.features, term


def test_what_all_voxels_share_makes_unlike_images_alike_unless_it_is_taken_off() -> None:
    _, plain = compared(30.0, centre=False)
    _, centred = compared(30.0, centre=True)
    assert float(plain) < 0.01  # both directions summed: cosines near 1
    assert abs(float(centred) - 2.2) < 0.2  # noise has cosines near 0: (1 + 0.1) a direction


def test_centred_features_have_mean_zero_and_forget_the_shift() -> None:
    features, _ = compared(30.0, centre=True)
    other, _ = compared(-5.0, centre=True)
    torch.testing.assert_close(features.mean(dim=(2, 3, 4)), torch.zeros(2, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(features, other, atol=1e-4, rtol=0)
