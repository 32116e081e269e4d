"""This machine: cores, memory, front end, processes, files written whole or not at all, error classes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
