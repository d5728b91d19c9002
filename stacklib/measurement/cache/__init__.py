"""What was measured is kept in the cache folder of the user: of planes, of sets of frames, of settings."""
