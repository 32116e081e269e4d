from . import services as services
from .browser import browse as browse
from .convert import from_fiftyone as from_fiftyone
from .convert import to_fiftyone as to_fiftyone
