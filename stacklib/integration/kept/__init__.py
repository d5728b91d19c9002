"""Samples that are kept on request, for runs with a few frames more or less."""
