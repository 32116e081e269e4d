"""Detectors: the catalogue, a file a family, weights, prediction."""

import lazy_loader

from odkit.detection.eager import without_compiler

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
without_compiler()
