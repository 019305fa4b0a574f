"""The ``data:``, ``labels:`` and ``split:`` sections of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diptych.data.identity import SPLITS
from diptych.errors import ConfigError
from diptych_molecules.parse import Standard

By = Literal["scaffold", "random", "cluster", "column"]
Assign = Literal["auto", "largest_first", "balanced", "hash"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which molecules there are, and what is done to them before anything is computed.

    Args:
        path: A file of molecules (.csv, .tsv, .parquet, .smi, .sdf, each but Parquet also as .gz), a folder of
            such files, a manifest written by inspect, or package:NAME/FILE for one that an installed package
            ships. $NAME is replaced by the environment variable.
        include: Patterns of the paths below a folder to read ("*" also matches "/"); by default all.
        exclude: Patterns of the paths to leave out.
        form: What the files are, whatever their suffix; auto goes by the suffix.
        delimiter: What separates the cells of a .csv file; by default the comma, or the semicolon or tab of a
            header without one.
        smiles: Column of the SMILES; a .smi file has smiles and name, an SD file its structures.
        identity: What tells molecules apart: inchikey finds tautomers of mobile hydrogens and resonance forms of one
            molecule, smiles (RDKit's canonical one) is several times faster.
        duplicates: Rows of one molecule are all kept (keep; never in different splits), or become its first row with
            the mean of numbers, 0/1 and class labels that contradict each other becoming missing (merge).
        fragments: Keep all fragments, the largest alone, or all that are not in RDKit's list of salts.
        neutralise: Remove charges where hydrogens allow it.
        tautomer: Take RDKit's canonical tautomer; slow.
        isolated_atoms: Keep atoms without a bond, such as counter-ions, or drop them as the released KCL does.
        computed: Descriptors of RDKit to add as columns "computed NAME", such as MolLogP, for labels.
        limit: Use at most this many rows, drawn over all files with a fixed seed.
        max_quarantined: Largest share of rows in quarantine, beyond which nothing is run.
    """

    path: str
    include: list[str] = field(default_factory=lambda: ["*"])
    exclude: list[str] = field(default_factory=list)
    form: Literal["auto", "csv", "tsv", "parquet", "smi", "sdf"] = "auto"
    delimiter: str | None = None
    smiles: str = "smiles"
    identity: Literal["inchikey", "smiles"] = "inchikey"
    duplicates: Literal["keep", "merge"] = "keep"
    fragments: Literal["all", "largest", "without_salts"] = "all"
    neutralise: bool = False
    tautomer: bool = False
    isolated_atoms: Literal["keep", "drop"] = "keep"
    computed: list[str] = field(default_factory=list)
    limit: int | None = None
    max_quarantined: float = 0.2

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit is a number of rows, at least 1; got {self.limit}")

    @property
    def standard(self) -> Standard:
        """What is done to every molecule."""
        return Standard(fragments=self.fragments, neutralise=self.neutralise, tautomer=self.tautomer)


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Which molecules are trained on and which are held out.

    Args:
        by: What stays together: molecules of one Murcko scaffold, each molecule alone (random), clusters of alike
            fingerprints (Butina), or a column of the file says it.
        assign: How the sets are dealt out. largest_first: the largest scaffolds to train, the rest in turn (as
            MoleculeNet, dgllife; no chance in it). balanced: sets larger than half of validation or test to train,
            the others in an order drawn from the seed (as chemprop); exact shares for single molecules. hash: each
            set alone by its hash, so that it holds across data sets. auto: hash for random, else largest_first.
        train: Share to train on.
        validation: Share for choices such as the epoch.
        test: Share held out.
        seed: What balanced draws from.
        salt: Public text that hash depends on.
        acyclic: Molecules without rings have one empty scaffold in common (together, as the literature has it),
            or are each their own.
        similarity: Tanimoto similarity from which a molecule belongs to a cluster.
        column: Column that says train, validation (valid, val, dev) or test.
    """

    by: By = "scaffold"
    assign: Assign = "auto"
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    salt: str = "diptych"
    acyclic: Literal["together", "apart"] = "together"
    similarity: float = 0.4
    column: str | None = None

    def __post_init__(self) -> None:
        shares = {name: float(getattr(self, name)) for name in SPLITS}
        if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
            given = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ConfigError(f"the shares of a split lie between 0 and 1 and add up to 1; got {given}")
        if (self.by == "column") != (self.column is not None):
            raise ConfigError("split.column goes with split.by: column, and only with it")
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"split.similarity lies above 0 and at most at 1; got {self.similarity:g}")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Molecules in a batch, over all processes.
        order: random, or similar: batches of molecules that are alike by fingerprint, which are hard to tell apart.
        cluster_size: With order similar, about how many molecules a batch is drawn from.
        workers: Processes that load batches; batches are slices of a memory map and rarely need any.
        cache: Folder of featurised molecules; by default DIPTYCH_CACHE or the user's cache folder.
        readers: Processes that parse and featurise; by default one per CPU.
    """

    batch_size: int = 256
    order: Literal["random", "similar"] = "random"
    cluster_size: int = 512
    workers: int = 0
    cache: str | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(
                f"loader.batch_size is at least 2, since molecules are contrasted; got {self.batch_size}"
            )
        if self.cluster_size < 2:
            raise ConfigError(f"loader.cluster_size is at least 2 molecules; got {self.cluster_size}")
