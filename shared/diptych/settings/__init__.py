"""From YAML and command lines to typed values: signatures are the schema, and every fault is told at once."""
