"""The graph: the one place where cells, paths, content keys and states are derived."""
