"""Losses: pure functions of rows, unreduced until the last line; no modules, configs or loggers in them."""
