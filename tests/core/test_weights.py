from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from diptych.errors import UserError
from diptych.weights import compare_weights, load_encoder, read_metadata, read_weights, save_encoder


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return list(mine) == list(its) and all(torch.equal(mine[name], its[name]) for name in mine)


def test_weights_and_text_come_back_as_they_were(tmp_path: Path) -> None:
    one, other = network(), network()
    save_encoder(one, tmp_path / "e.safetensors", {"digest": "abc", "step": "7"})
    load_encoder(other, tmp_path / "e.safetensors")
    assert same(one, other)
    assert read_metadata(tmp_path / "e.safetensors") == {"digest": "abc", "step": "7"}


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    one = network()
    files = []
    for number in range(5):
        save_encoder(one, tmp_path / str(number), {"b": "1", "a": "2", "c": "3"})
        files.append((tmp_path / str(number)).read_bytes())
    assert len(set(files)) == 1


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight
    save_encoder(tied, tmp_path / "tied.safetensors")
    other = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    load_encoder(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[0].weight, other[1].weight)
    assert torch.equal(other[0].weight, tied[0].weight)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("under", [None, "state_dict", "model"])
def test_checkpoints_of_others_are_read(tmp_path: Path, under: str | None, parallel: bool) -> None:
    """An averaged, wrapped model as released checkpoints hold it: keys "module.x" and a counter."""
    one = network()
    state: dict[str, Any] = AveragedModel(one).state_dict()
    if parallel:
        state = {name.replace("module.", "module.module."): tensor for name, tensor in state.items()}
    assert "n_averaged" in state
    assert ("module.module.0.weight" if parallel else "module.0.weight") in state
    torch.save(state if under is None else {under: state, "epoch": 3}, tmp_path / "model.pt")
    found = read_weights(tmp_path / "model.pt")
    assert set(found) == set(one.state_dict())
    other = network()
    load_encoder(other, tmp_path / "model.pt")
    assert same(one, other)


def test_the_report_names_missing_unexpected_and_differing_keys(tmp_path: Path) -> None:
    wider = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(3, affine=False), nn.Linear(1, 1, bias=False))
    save_encoder(wider, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        load_encoder(network(), tmp_path / "w.safetensors")
    text = str(caught.value)
    assert "do not fit this encoder. 2 missing: 1.weight, 1.bias" in text
    assert "1 unexpected: 2.weight" in text
    assert "2 of another shape: 0.weight (5, 4) instead of (3, 4), 0.bias (5,) instead of (3,)" in text
    assert "(of 7 expected)" in text


def test_a_failed_load_changes_nothing(tmp_path: Path) -> None:
    save_encoder(network(5), tmp_path / "w.safetensors")
    one = network()
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    with pytest.raises(UserError):
        load_encoder(one, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


def test_long_lists_are_cut() -> None:
    expected = {f"layer{number}": torch.zeros(1) for number in range(9)}
    assert compare_weights(expected, {}) == (
        "9 missing: layer0, layer1, layer2, layer3, layer4 and 4 more (of 9 expected)"
    )
    assert compare_weights(expected, expected) == ""


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (eval, ("open('/tmp/never', 'w')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": Evil()}, "holds more than weights, and loading that could run code"),
        ({"weights": 3.0}, "holds 'weights' of type float where a tensor is expected"),
        ([1, 2], "holds no weights: expected names with tensors, got list"),
        ({}, "holds no weights"),
    ],
)
def test_a_checkpoint_that_holds_other_things_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "x.pt")
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("size", [0, 10, 200])
def test_a_torn_file_is_refused(tmp_path: Path, name: str, size: int) -> None:
    one = network()
    if name.endswith("pt"):
        torch.save(one.state_dict(), tmp_path / name)
    else:
        save_encoder(one, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
    with pytest.raises(
        UserError, match=r"cannot be read as a torch checkpoint|is not a whole safetensors file|code"
    ):
        read_weights(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file of weights at .*x\.pt; give a \.safetensors file"):
        read_weights(tmp_path / "x.pt")
