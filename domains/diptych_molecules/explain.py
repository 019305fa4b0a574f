"""Which relations of its element an atom attends to, printed and drawn on the molecule.

The shares are KMPNN's alpha over relation edges (Fang et al. 2022, equation 4). What they tell apart is elements more
than atoms: the score of an attribute value u for an atom v is LeakyReLU(a . [x_u || x_v]), where the part of x_v is the
same for all of v's attribute values and leaves the softmax unchanged but where the leaky ReLU bends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor, nn

from diptych.data.atomic import replacing
from diptych.errors import ConfigError, UserError
from diptych.nearest import nearest
from diptych_molecules.elements import knowledge
from diptych_molecules.graph_of import graph_of
from diptych_molecules.kmpnn import KMPNN

SUFFIXES = (".svg", ".png")
SIZE = (700, 560)
Colour = tuple[float, float, float]
COLOURS: dict[str, Colour] = {
    "orange": (0.99, 0.75, 0.43),
    "blue": (0.65, 0.81, 0.98),
    "green": (0.70, 0.90, 0.60),
    "pink": (0.98, 0.68, 0.80),
    "yellow": (0.98, 0.93, 0.50),
    "violet": (0.80, 0.72, 0.95),
    "grey": (0.82, 0.82, 0.82),
    "turquoise": (0.60, 0.90, 0.88),
}


class Explained(NamedTuple):
    """What every atom of a molecule attends to."""

    shares: Tensor  # (atoms, relations): 1 together; 0 for an atom without attribute values
    attributes: list[list[str | None]]  # of every atom, by relation


def explain(
    smiles: str, *, run: str, out: str | None = None, step: int | None = None, relation: str | None = None
) -> None:
    """Prints which element relations every atom attends to, and draws them on the molecule.

    Args:
        smiles: The molecule.
        run: The folder of a run whose encoder is a KMPNN or holds one, such as a Pair.
        out: The picture to write, .svg or .png; without it only the table is printed. Atoms have the colour of the
            relation they attend to most.
        step: Of message passing, from 1; by default the mean over all steps.
        relation: Colour atoms by the share of this relation instead, the darker the more.
    """
    graph = knowledge()
    if out is not None and Path(out).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a picture ends in .svg or .png, got {out!r}")
    if relation is not None and relation not in graph.relations:
        raise ConfigError(f"there is no relation {relation!r}; {nearest(relation, graph.relations)}")
    encoder = kmpnn_of(encoder_of(Path(run)), run)
    mol = Chem.MolFromSmiles(smiles)
    found = attended(encoder, smiles, step)
    print("\n".join(table(mol, found, step)))
    if out is not None:
        draw(mol, found, relation, Path(out))
        print(out)


def encoder_of(run: Path) -> nn.Module:
    """The trained encoder of a run, without its data. Raises UserError when the run has none."""
    from diptych.discovery import find_domain
    from diptych.settings.plans import plan_of_run
    from diptych.weights import load_encoder

    values = plan_of_run(find_domain("molecules"), run, ()).resolved.values
    path = run / "encoder.safetensors"
    if not path.is_file():
        raise UserError(
            f"{run} has no encoder.safetensors: the run did not end; go on with pretrain --resume {run}"
        )
    encoder: nn.Module = values["encoder"]()
    load_encoder(encoder, path)
    return encoder.eval()


def kmpnn_of(encoder: nn.Module, run: str) -> KMPNN:
    """The KMPNN that an encoder is or holds. Raises UserError when it is none."""
    for module in encoder.modules():
        if isinstance(module, KMPNN):
            return module
    raise UserError(
        f"the encoder of {run} is a {type(encoder).__name__}, which has no relations of elements to attend to; give "
        "a run whose encoder is diptych_molecules.kmpnn.KMPNN or a diptych_molecules.kcl.Pair"
    )


@torch.no_grad()
def attended(encoder: KMPNN, smiles: str, step: int | None = None) -> Explained:
    """The shares of one step, from 1, or their mean over all. Raises for a step or a SMILES that there is not."""
    if step is not None and not 1 <= step <= encoder.steps:
        raise ConfigError(f"the encoder passes messages in steps 1 to {encoder.steps}, got step {step}")
    batch = graph_of([smiles])
    every = torch.stack([each.relations for each in encoder.attend(batch)])
    graph = knowledge()
    names = [*graph.attributes, None]
    attributes = [[names[slot] for slot in row] for row in encoder.slots[batch.nodes[:, 0]].tolist()]
    return Explained(every.mean(0) if step is None else every[step - 1], attributes)


def table(mol: Chem.Mol, found: Explained, step: int | None, top: int = 3) -> list[str]:
    """Lines of text: for every atom the relations it attends to most, with attribute value and share."""
    over = "mean over steps" if step is None else f"step {step}"
    lines = [f"share of attention of every atom among the attribute values of its element, {over}"]
    for atom, shares, attributes in zip(mol.GetAtoms(), found.shares.tolist(), found.attributes, strict=True):
        order = sorted(range(len(shares)), key=lambda r: -shares[r])[:top]
        named = [f"{attributes[r]} {shares[r]:.3f}" for r in order if attributes[r] is not None]
        lines.append(f"{atom.GetIdx():4d} {atom.GetSymbol():3} {', '.join(named) or 'no attribute values'}")
    return lines


def draw(mol: Chem.Mol, found: Explained, relation: str | None, path: Path) -> None:
    """Writes the molecule with coloured atoms and, below it, what the colours mean."""
    colours, legend = by_share(found, relation) if relation is not None else by_most(mol, found)
    maker = rdMolDraw2D.MolDraw2DSVG if path.suffix.lower() == ".svg" else rdMolDraw2D.MolDraw2DCairo
    drawer = maker(*SIZE)
    options: Any = drawer.drawOptions()  # its stubs give every property the type of the whole
    options.addAtomIndices = True
    options.legendFontSize = 18
    options.legendFraction = min(0.5, 0.06 * len(legend) + 0.04)
    rdMolDraw2D.PrepareAndDrawMolecule(
        drawer,
        mol,
        legend="\n".join(legend),
        highlightAtoms=list(colours),
        highlightAtomColors=colours,
        highlightBonds=[],
    )
    drawer.FinishDrawing()
    picture = drawer.GetDrawingText()
    with replacing(path) as partial:
        partial.write_bytes(picture if isinstance(picture, bytes) else picture.encode())


def by_most(mol: Chem.Mol, found: Explained) -> tuple[dict[int, Colour], list[str]]:
    """A colour for the relation that each atom attends to most, and a line for each colour."""
    relations = knowledge().relations
    elements: dict[str, set[str]] = {}
    most: dict[int, str] = {}
    for atom, shares in zip(mol.GetAtoms(), found.shares, strict=True):
        if shares.sum() > 0:
            name = relations[int(shares.argmax())]
            most[atom.GetIdx()] = name
            elements.setdefault(name, set()).add(atom.GetSymbol())
    palette = dict(zip(elements, list(COLOURS) * (len(elements) // len(COLOURS) + 1), strict=False))
    legend = [
        f"{palette[name]}: {name.replace('_', ' ')} ({', '.join(sorted(elements[name]))})"
        for name in elements
    ]
    return {atom: COLOURS[palette[name]] for atom, name in most.items()}, legend


def by_share(found: Explained, relation: str) -> tuple[dict[int, Colour], list[str]]:
    """White for the least share of one relation to blue for the largest, and its range."""
    shares: Sequence[float] = found.shares[:, knowledge().relations.index(relation)].tolist()
    least, most = min(shares), max(shares)
    scaled = [(share - least) / max(most - least, 1e-9) for share in shares]
    colours: dict[int, Colour] = {
        atom: (1 - 0.6 * each, 1 - 0.4 * each, 1.0) for atom, each in enumerate(scaled)
    }
    return colours, [f"share of {relation.replace('_', ' ')}: {least:.3f} (white) to {most:.3f} (blue)"]
