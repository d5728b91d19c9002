"""Integrate the frames of a night while they come in, and show how it goes on one page."""
