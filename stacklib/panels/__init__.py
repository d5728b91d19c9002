"""Live panels for notebooks; only here are widgets used."""
