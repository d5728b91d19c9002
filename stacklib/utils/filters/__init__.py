"""Filters of planes and masks, compiled where those of SciPy take several times as long."""
