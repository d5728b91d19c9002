"""Live panels for notebooks, built from widgets."""

import lazy_loader

# A notebook waits only for the panels that it shows.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
