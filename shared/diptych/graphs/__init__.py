"""Graphs in plain torch: batches, views, neighbourhoods, and the methods that contrast graphs or their nodes."""
