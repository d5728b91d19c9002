"""Processes that deposit frames: the drizzle library holds the lock of the interpreter."""
