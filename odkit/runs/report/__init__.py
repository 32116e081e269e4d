"""A run's report, one page of HTML that needs nothing else, and its model card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
