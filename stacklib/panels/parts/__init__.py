"""Parts of the explorer and of the inspector."""
