"""The run, from frames to a result."""
