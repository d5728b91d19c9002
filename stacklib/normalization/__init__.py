"""Match frames to a reference and weight them."""
