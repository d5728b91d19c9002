"""Integration of color frames without what hits left around them, in one pass over the samples."""
