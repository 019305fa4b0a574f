"""Readers of netlists: SPICE and CDL with hierarchy, post-layout forms with R and C, DSPF.

The tokenizer is our own, after trying KLayout's ``NetlistSpiceReader`` (0.30.12) on the 437 netlists of
sky130_fd_sc_hd: it ends at "Redefinition of circuit" in 427 of them, because it takes the ``%`` in the names of the
``PM_`` subcircuits for the beginning of something else, and it turns names to upper case. Neither it nor spicelib,
which edits lines, knows pins as ends of capacitors, which are the targets here, nor DSPF.
"""
