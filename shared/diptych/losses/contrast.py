"""One kernel for every contrast: rows of a group are positives, rows of a scope are compared.

NT-Xent (Chen et al. 2020, equation 1) groups by sample; the supervised contrast (Khosla et al. 2020,
equations 2 and 3) by label, form "out" or "in"; the observation and sample levels of COMET (Wang et al. 2023)
by time step with the window as scope and by window with the time step as scope, its trial and patient levels
by those ids with ``positives="later"`` and ``keep_self=True``; a queue of keys (He et al. 2020) is another
set of rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diptych.distributed import mean_over_processes
from diptych.losses.kernel import CrossContrast, SelfContrast
from diptych.losses.masked import Form, MaskedContrast
from diptych.losses.matching import Exclusions, GroupedPositives, Ids, MaskedPositives, Positives
from diptych.losses.similarity import full_precision, unit_rows
from diptych.losses.tiles import plan
from diptych.types import Rows

Similarity = Literal["cosine", "dot"]

# exp of a logit within +-40 and sums of many of them are normal float32 numbers, so no maximum need be found.
SAFE_LOGIT = 40.0


class Contrast(NamedTuple):
    """What a contrast says of every anchor, (*scopes, n), in float32 or better; a loss is made of it.

    The term of an anchor is ``candidates - positives`` and counts only where ``count`` is above 0.
    """

    candidates: Tensor  # log-sum-exp of the logits of everything it is compared with; -inf with nothing
    positives: Tensor  # "out": mean logit of its positives; "in": log of their mean exp; 0 without any
    count: Tensor  # type: ignore[assignment]  # int64: how many positives it has


def contrast(
    anchors: Rows,
    keys: Rows | None = None,
    *,
    temperature: float | Tensor = 0.1,
    similarity: Similarity = "cosine",
    form: Form = "out",
    positives: Positives = "others",
    keep_self: bool = False,
    block: int | None = None,
) -> Contrast:
    """Compare every anchor with the keys of its scope, or with the other anchors.

    Logits are cosines or dot products divided by ``temperature``, computed in float32 (float64 stays)
    whatever the autocast, in tiles, so that memory grows with the number of rows. They can be differentiated
    once; ``create_graph=True`` raises RuntimeError.

    Args:
        anchors: z (*scopes, n, width); a leading dimension compares only within itself, as does ``scope``.
        keys: z (*scopes, m, width); None compares the anchors with each other.
        temperature: above 0; a scalar tensor may be learned.
        form: "out" averages the positives' logits outside the logarithm, "in" their exponentials inside it.
        positives: "others" are the keys of the same group (not -1) under another row id; "later" only those
            with a greater row id, so that each unordered pair counts once.
        keep_self: keep keys with the anchor's own row id among its candidates; they are never positives.
        block: rows and columns of a tile; chosen from a memory budget when None.

    Raises:
        ValueError: shapes that do not fit, or an option that does not exist.
    """
    _check(anchors, keys, temperature, similarity, form, positives, block)
    fixed = None if isinstance(temperature, Tensor) else float(temperature)
    bounded = similarity == "cosine" and fixed is not None and 1 / fixed <= SAFE_LOGIT
    anchor_ids, key_ids = _ids(anchors), _ids(anchors if keys is None else keys)
    listed = anchors.z.device.type == "cpu"  # reading a number there makes nothing wait
    exclusions = Exclusions(anchor_ids, key_ids, keep_self=keep_self, listed=listed)
    grouped = form == "out" and positives == "others"
    z = _flat(anchors.z, similarity)
    k = z if keys is None else _flat(keys.z, similarity)
    dtype = torch.promote_types(z.dtype, k.dtype)
    cuts = plan(z, k.shape[1], bounded=bounded, block=block)
    if grouped and keys is None:
        found = GroupedPositives(anchor_ids, None, listed=listed)
        candidates, positive = SelfContrast.apply(  # type: ignore[no-untyped-call]
            _scaled(z, temperature**-0.5), exclusions, found, cuts
        )
        count = found.count.expand(candidates.shape)
    else:
        a, k = _scaled(z.to(dtype), temperature**-1.0), k.to(dtype)
        if grouped:
            found = GroupedPositives(anchor_ids, key_ids, listed=listed)
            candidates, positive = CrossContrast.apply(a, k, exclusions, found, cuts)  # type: ignore[no-untyped-call]
            count = found.count.expand(candidates.shape)
        else:
            candidates, positive, count = MaskedContrast.apply(  # type: ignore[no-untyped-call]
                a, k, exclusions, MaskedPositives(anchor_ids, key_ids, positives), form, cuts
            )
    lead = anchors.z.shape[:-1]
    return Contrast(candidates.view(lead), positive.view(lead), count.reshape(lead))


def mean_over_anchors(c: Contrast) -> Tensor:
    """Mean of ``candidates - positives`` over the anchors that have a positive; 0 when none has.

    NT-Xent (Chen et al. 2020, equation 1) and the supervised contrast (Khosla et al. 2020). Over several
    processes the mean of what they return is the loss over all their anchors.
    """
    has = c.count > 0
    total = torch.where(has, c.candidates - c.positives, 0.0).sum()
    return mean_over_processes(total, has.sum())


def mean_over_pairs(c: Contrast) -> Tensor:
    """Mean of ``candidates - positive logit`` over all pairs of an anchor and a positive; 0 without any.

    An anchor weighs as much as it has positives (COMET's trial and patient losses). For form "out".
    """
    has = c.count > 0
    total = torch.where(has, (c.candidates - c.positives) * c.count, 0.0).sum()
    return mean_over_processes(total, c.count.sum())


def _flat(z: Tensor, similarity: Similarity) -> Tensor:
    """Rows as (scopes, n, width), in float32 or better, of unit length for cosines."""
    z = unit_rows(z) if similarity == "cosine" else full_precision(z)
    return z.flatten(0, -3) if z.ndim > 2 else z[None]


def _scaled(z: Tensor, factor: float | Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return z * factor.to(z.dtype)
    return z if factor == 1.0 else z * factor


def _ids(rows: Rows) -> Ids:
    def flat(ids: Tensor) -> Tensor:
        return ids.flatten(0, -2) if ids.ndim > 1 else ids[None]

    return Ids(flat(rows.group), flat(rows.row), None if rows.scope is None else rows.scope[None])


def _check(
    anchors: Rows,
    keys: Rows | None,
    temperature: float | Tensor,
    similarity: str,
    form: str,
    positives: str,
    block: int | None,
) -> None:
    _check_rows(anchors, "anchors")
    if keys is not None:
        _check_rows(keys, "keys")
        ours, theirs = anchors.z.shape, keys.z.shape
        if ours[-1] != theirs[-1]:
            raise ValueError(f"anchors are {ours[-1]} wide and keys {theirs[-1]}; they need one width")
        if ours[:-2] != theirs[:-2]:
            raise ValueError(
                f"anchors have the leading scopes {tuple(ours[:-2])} and keys {tuple(theirs[:-2])}; "
                "they need the same"
            )
        if (anchors.scope is None) != (keys.scope is None):
            raise ValueError("give scope ids to both anchors and keys, or to neither")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    for name, value, known in (
        ("similarity", similarity, ("cosine", "dot")),
        ("form", form, ("out", "in")),
        ("positives", positives, ("others", "later")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if block is not None and block < 1:
        raise ValueError(f"block must be at least 1 row, got {block}")


def _check_rows(rows: Rows, name: str) -> None:
    shape = tuple(rows.z.shape)
    if len(shape) < 2:
        raise ValueError(f"{name}.z must be (*scopes, n, width), got {shape}")
    if not rows.z.is_floating_point():
        raise ValueError(f"{name}.z must hold floating-point numbers, got {rows.z.dtype}")
    for field in ("group", "row", "scope"):
        ids = getattr(rows, field)
        if ids is None:
            continue
        allowed = {shape[-2:-1]} if field == "scope" else {shape[-2:-1], shape[:-1]}
        if tuple(ids.shape) not in allowed:
            wanted = " or ".join(str(each) for each in sorted(allowed, key=len))
            raise ValueError(f"{name}.{field} must have shape {wanted} for z {shape}, got {tuple(ids.shape)}")
        if ids.dtype != torch.int64:
            raise ValueError(f"{name}.{field} must be int64, got {ids.dtype}")
