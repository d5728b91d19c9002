"""Drizzle: deposit the pixels of unregistered frames on a finer grid, each color of a mosaic by itself."""
