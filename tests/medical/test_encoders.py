"""MONAI's networks as encoders: maps at any level, weights that load on both sides, faults that are named."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DenseNet121, SwinUNETR, UNet, resnet18
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.export import export_program
from diptych.types import Views
from diptych.weights import load_encoder, save_encoder
from diptych_medical.encoders import Matched, Monai, load_pretrained
from diptych_medical.recipes import PixPro

NETS = "monai.networks.nets."
UNET: dict[str, Any] = {"out_channels": 4, "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1}
DENSENET = {"out_channels": 2, "init_features": 8, "growth_rate": 4}
BOTTLENECK = "model.1.submodule.1.submodule"


def unet(dims: int = 3, **settings: Any) -> Monai:
    torch.manual_seed(0)
    return Monai(1, dims, network=NETS + "UNet", options=UNET, **settings)


def images(dims: int = 3, side: int = 32, n: int = 2) -> Tensor:
    return torch.rand(n, 1, *[side] * dims, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("network", "options", "level", "dims", "width", "cells"),
    [
        ("UNet", UNET, None, 3, 4, 32),
        ("UNet", UNET, "model.0", 3, 4, 16),
        ("UNet", UNET, BOTTLENECK, 3, 16, 8),
        ("UNet", UNET, BOTTLENECK, 2, 16, 8),
        ("resnet18", {"widen_factor": 0.25}, "layer1", 3, 16, 16),
        ("resnet18", {"widen_factor": 0.25}, "layer3.1", 3, 64, 4),
        ("resnet18", None, "layer4", 2, 512, 2),
        (
            "DenseNet121",
            {"out_channels": 2, "init_features": 8, "growth_rate": 4},
            "features.denseblock1",
            3,
            32,
            8,
        ),
        (
            "DenseNet121",
            {"out_channels": 2, "init_features": 8, "growth_rate": 4},
            "features.transition2",
            2,
            32,
            2,
        ),
        ("BasicUNet", {"features": [4, 4, 8, 8, 8, 4]}, "upcat_2", 3, 4, 16),
    ],
)
def test_grids_at_several_levels(
    network: str, options: dict[str, Any] | None, level: str | None, dims: int, width: int, cells: int
) -> None:
    encoder = Monai(1, dims, network=NETS + network, options=options, level=level)
    whole, parts, grid = encoder(images(dims))
    assert (encoder.width, encoder.grid_width) == (width, width)
    assert grid.shape == (2, width, *[cells] * dims)
    torch.testing.assert_close(whole, grid.flatten(2).mean(2))
    assert parts is None


@pytest.mark.parametrize(
    ("level", "width", "cells"), [(None, 3, 64), ("encoder10", 192, 2), ("decoder3", 24, 16)]
)
def test_swin_unetr(level: str | None, width: int, cells: int) -> None:
    options = {"out_channels": 3, "feature_size": 12}
    encoder = Monai(1, 3, network=NETS + "SwinUNETR", options=options, level=level)
    with torch.no_grad():
        _, _, grid = encoder.eval()(images(side=64, n=1))
    assert encoder.grid_width == width
    assert grid.shape == (1, width, *[cells] * 3)
    plain = SwinUNETR(in_channels=1, out_channels=3, feature_size=12, spatial_dims=3)
    plain.load_state_dict(encoder.network.state_dict(), strict=True)


def test_a_level_is_what_plain_monai_computes_there() -> None:
    encoder = unet(level="model.0", whole_level=BOTTLENECK)
    plain = UNet(spatial_dims=3, in_channels=1, **UNET)
    plain.load_state_dict(encoder.network.state_dict(), strict=True)
    x = images()
    whole, _, grid = encoder(x)
    first = plain.model[0](x)
    middle = plain.model[1].submodule
    torch.testing.assert_close(grid, first)
    torch.testing.assert_close(whole, middle[1].submodule(middle[0](first)).flatten(2).mean(2))
    assert (encoder.width, encoder.grid_width) == (16, 4)
    output = unet()
    plain.load_state_dict(output.network.state_dict(), strict=True)
    torch.testing.assert_close(output(x).grid, plain(x))


def test_a_row_of_the_network_can_stand_for_the_sample() -> None:
    encoder = Monai(
        1, 2, network=NETS + "resnet18", options={"num_classes": 7}, level="layer2", whole_level="fc"
    )
    whole, _, grid = encoder.eval()(images(2))
    assert (encoder.width, encoder.grid_width) == (7, 128)
    torch.testing.assert_close(whole, encoder.network(images(2)))
    assert grid.shape == (2, 128, 8, 8)


def test_a_level_is_read_before_what_follows_changes_it_in_place() -> None:
    encoder = Monai(1, 2, network=NETS + "resnet18", level="layer1", whole_level="bn1").eval()
    network = encoder.network
    expected = network.bn1(network.conv1(images(2))).flatten(2).mean(2)
    torch.testing.assert_close(encoder(images(2)).whole, expected)


def test_modules_behind_the_level_are_not_run_and_get_no_gradient() -> None:
    encoder = Monai(1, 2, network=NETS + "resnet18", level="layer2")
    encoder(images(2)).grid.sum().backward()
    reached = {
        name.partition(".")[0] for name, each in encoder.network.named_parameters() if each.grad is not None
    }
    assert reached == {"conv1", "bn1", "layer1", "layer2"}
    ran = []
    encoder.network.layer3.register_forward_hook(lambda *_: ran.append(1))
    encoder(images(2))
    assert not ran
    assert len(encoder.network.layer2._forward_hooks) == 0, "a reading leaves no hook behind"


@pytest.mark.parametrize(
    ("encoder", "plain"),
    [
        (unet, partial(UNet, spatial_dims=3, in_channels=1, **UNET)),
        (
            partial(Monai, 1, 3, network=NETS + "resnet18", options={"widen_factor": 0.25}, level="layer4"),
            partial(resnet18, spatial_dims=3, n_input_channels=1, widen_factor=0.25),
        ),
        (
            partial(Monai, 1, 2, network=NETS + "DenseNet121", options=DENSENET, level="features"),
            partial(DenseNet121, spatial_dims=2, in_channels=1, **DENSENET),
        ),
        (
            partial(Monai, 1, 2, network=NETS + "BasicUNet", options={"features": [4] * 6}, level="conv_0"),
            partial(BasicUNet, spatial_dims=2, in_channels=1, features=[4] * 6),
        ),
    ],
    ids=["UNet", "resnet18", "DenseNet121", "BasicUNet"],
)
def test_weights_go_to_plain_monai_and_back(encoder: Any, plain: Any, tmp_path: Path) -> None:
    ours, theirs = encoder(), plain()
    theirs.load_state_dict(ours.network.state_dict(), strict=True)
    torch.save(plain().state_dict(), tmp_path / "plain.pt")
    matched = load_pretrained(ours, tmp_path / "plain.pt")
    assert matched.complete
    assert matched.loaded == tuple(theirs.state_dict())
    assert str(matched) == f"{len(matched.loaded)} of {len(matched.loaded)} tensors loaded"
    saved = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in ours.network.state_dict().items())


def test_layers_hold_every_weight_once_in_order() -> None:
    for encoder in (
        unet(),
        Monai(1, 2, network=NETS + "resnet18", level="layer1"),
        Monai(1, 2, network=NETS + "DenseNet121", options=DENSENET, level="features"),
    ):
        held = [parameter for layer in encoder.layers() for parameter in layer.parameters()]
        assert [id(each) for each in held] == [id(each) for each in encoder.parameters()]
        assert len(encoder.layers()) >= 3


def test_a_seed_gives_the_weights_and_looking_for_widths_draws_nothing() -> None:
    first = unet()
    after = torch.rand(1)
    torch.manual_seed(0)
    plain = UNet(spatial_dims=3, in_channels=1, **UNET)
    assert torch.equal(torch.rand(1), after)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name])


def test_looking_for_widths_leaves_the_network_as_it_was() -> None:
    encoder = Monai(1, 2, network=NETS + "resnet18", level="layer1")
    assert all(module.training for module in encoder.modules())
    assert encoder.network.bn1.num_batches_tracked == 0


def test_files_of_diptych_load_into_the_network_too(tmp_path: Path) -> None:
    trained, fresh = unet(), unet()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    save_encoder(trained, tmp_path / "encoder.safetensors")
    assert load_pretrained(fresh, tmp_path / "encoder.safetensors").complete
    assert torch.equal(fresh(images()).grid, trained(images()).grid)
    load_encoder(fresh, tmp_path / "encoder.safetensors")
    torch.save(
        {"state_dict": {f"backbone.{k}": v for k, v in trained.network.state_dict().items()}},
        tmp_path / "b.pt",
    )
    assert load_pretrained(unet(), tmp_path / "b.pt", prefix="backbone.").complete


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    encoder = unet()
    state = dict(encoder.network.state_dict())
    names = list(state)
    gone, bent = names[0], names[2]
    del state[gone]
    state[bent] = torch.zeros(9, 9)
    state["head.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match="do not fit UNet") as raised:
        load_pretrained(encoder, tmp_path / "other.pt")
    for part in (
        f"1 missing: {gone}",
        "1 unexpected: head.weight",
        f"1 of another shape: {bent} (9, 9) instead of",
    ):
        assert part in str(raised.value)
    before = encoder.network.state_dict()[gone].clone()
    matched = load_pretrained(encoder, tmp_path / "other.pt", strict=False)
    assert (matched.missing, matched.unexpected) == ((gone,), ("head.weight",))
    assert set(matched.loaded) == set(names) - {gone, bent}
    assert torch.equal(encoder.network.state_dict()[gone], before)
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match=r"no weight in .*foreign\.pt fits UNet: 0 of"):
        load_pretrained(encoder, tmp_path / "foreign.pt", strict=False)
    with pytest.raises(UserError, match="there is no file of weights"):
        load_pretrained(encoder, tmp_path / "none.pt")
    long = Matched(loaded=("a",), missing=tuple("bcdefghij"))
    assert str(long) == "1 of 10 tensors loaded; 9 missing: b, c, d, e, f and 4 more"


def test_modules_without_a_network_inside_load_as_they_are(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "layer.pt")
    assert load_pretrained(layer, tmp_path / "layer.pt").loaded == ("weight", "bias")


def test_an_encoder_is_exported_for_plain_torch(tmp_path: Path) -> None:
    encoder = unet(2, level="model.0").eval()
    export_program(encoder, images(2), tmp_path / "encoder.pt2")
    found = torch.export.load(tmp_path / "encoder.pt2").module()(images(2))
    torch.testing.assert_close(found["grid"], encoder(images(2)).grid)


@pytest.mark.parametrize("level", [BOTTLENECK, None])
def test_dense_pretraining_takes_any_of_them(level: str | None) -> None:
    encoder = unet(level=level)
    method = PixPro(hidden=8, width=6, points=20)(encoder, partial(torch.optim.SGD, lr=0.1), None)
    (each,) = method.phases[0].passes
    batch = Views((images(side=16),), {"sample": torch.arange(2)})
    assert each.target is not None
    loss = each.terms[0].objective(each.online(batch), each.target(batch), batch)
    loss.backward()
    first = next(encoder.parameters()).grad
    assert first is not None
    assert first.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": NETS + "UNett"}, r"has no 'UNett'; did you mean monai\.networks\.nets\.UNet\?"),
        ({"network": "UNet"}, "expected a full class path"),
        ({"network": "monai.nets.UNet"}, "there is no module 'monai.nets'"),
        ({"network": "math.pi"}, "must name a class or function, but math.pi is float"),
        (
            {"network": "builtins.dict", "options": {}},
            "must give a torch module, but builtins.dict gives dict",
        ),
        (
            {"level": "model.1.submodul"},
            "UNet has no level 'model.1.submodul'; did you mean 'model.1.submodule'?",
        ),
        ({"whole_level": "model.9"}, "UNet has no whole_level 'model.9'; did you mean 'model.2'?"),
        ({"options": {**UNET, "channel": 3}}, "UNet: no option 'channel'; did you mean 'channels'?"),
        (
            {"options": {}},
            "option 'out_channels' is missing; option 'channels' is missing; option 'strides' is missing",
        ),
        (
            {"options": {**UNET, "strides": [2]}},
            "UNet refuses its options (ValueError): the length of `strides`",
        ),
        (
            {"options": {**UNET, "in_channels": 3}},
            "takes no image of 32 or 64 or 96 voxels a side and 1 channels",
        ),
        (
            {"network": NETS + "resnet18", "options": None},
            "the output of ResNet is no map (n, width, H, W) but (1, 400); choose another level, below one of: conv1",
        ),
        (
            {"network": NETS + "resnet18", "options": {"n_input_channel": 1}},
            "did you mean 'n_input_channels'?",
        ),
        ({"network": NETS + "resnet18", "options": None, "level": "fc"}, "level 'fc' of ResNet is no map"),
        (
            {"network": NETS + "BasicUNetPlusPlus", "options": {"features": [4] * 6}},
            "the output of BasicUNetPlusPlus is no map (n, width, H, W) but list",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    given = {"network": NETS + "UNet", "options": UNET} | settings
    with pytest.raises(ConfigError) as raised:
        Monai(1, 2, **given)
    text = message.replace("\\", "")
    assert text in str(raised.value)


def test_a_size_that_does_not_suit_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"UNet does not take images of 18 x 18 voxels: .*multiples of 16 or 32"
    ):
        unet(2)(images(2, side=18))
    with pytest.raises(RuntimeError, match="channels"):
        unet(2)(torch.zeros(1, 3, 16, 16))
