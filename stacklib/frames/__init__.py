"""Frames, frame sets and headers."""
