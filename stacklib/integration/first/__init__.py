"""What the first run on a computer compiles before it begins."""
