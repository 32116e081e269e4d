"""Dataset and Predictions as columns, boxes, images, duplicates; below it formats, the audit and the demo."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
