"""The lessons of notebook 0."""
