"""The engine: expressions, comparison and planning over Arrow batches. Pure Python, no Django."""
