"""Figures of a result, and what all figures share."""
