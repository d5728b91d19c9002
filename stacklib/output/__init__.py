"""The integrated image and the files it is saved to."""
