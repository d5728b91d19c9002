"""Light of one image relative to another one: by its stars, or by other structure."""
