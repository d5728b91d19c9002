"""One viewer for every picture: zoom, pan, stretch, values and positions, as quick for 100 megapixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
