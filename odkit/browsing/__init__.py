"""FiftyOne: its services, datasets in it, the App in the cell, what a person did there."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
