"""The element knowledge graph: its rules, the script that builds its table, and the table."""
