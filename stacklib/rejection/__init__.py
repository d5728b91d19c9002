"""The rejection rules."""
