"""Frames matched by their light."""
