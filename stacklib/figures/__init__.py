"""Figures of a result, and the common look of all figures."""
