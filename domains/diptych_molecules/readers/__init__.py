"""Readers of files with molecules: each gives a table of texts, one row a molecule, and knows its form."""

from diptych_molecules.readers.files import SUFFIXES, Found, find, form_of
from diptych_molecules.readers.tables import Rows, read

__all__ = ["SUFFIXES", "Found", "Rows", "find", "form_of", "read"]
