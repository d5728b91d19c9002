"""Frames, their headers, and finding them."""
