"""Image integration for astrophotography: from registered frames to a clean master.

The public names are those of ``__init__.pyi``. Each is imported when it is first used, so that
``import stacklib`` takes a moment only.
"""

import lazy_loader

from stacklib.utils.package import VERSION

__version__ = VERSION

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
