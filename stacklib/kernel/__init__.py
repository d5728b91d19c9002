"""Sort, reject, combine and count arrays of samples; no files here."""
