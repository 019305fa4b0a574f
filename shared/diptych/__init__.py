"""Diptych: a shared core for self-supervised contrastive pretraining.

The core knows rows, groups and scopes; a domain plug-in turns its knowledge (a trial id, a homeomorphism,
a knowledge graph) into views and ids. Importing this package imports nothing heavy.
"""

__version__ = "0.3.0"
