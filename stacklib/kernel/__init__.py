"""Sort, reject, combine and count samples in memory; no files."""
