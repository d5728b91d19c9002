"""Answer questions about frames and recipes; nothing is saved."""
