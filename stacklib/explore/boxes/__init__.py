"""Boxes of an image: which frames made what is seen there."""
