"""Measure one frame: statistics, noise, stars, quality."""
