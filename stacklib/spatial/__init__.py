"""Arrays only: rejection that looks at the neighbors of a sample."""
