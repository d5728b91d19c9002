"""The commands of the command line, one a module: their arguments, and what they do."""
