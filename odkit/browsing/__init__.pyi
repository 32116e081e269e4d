from .browser import browse as browse
from .convert import from_fiftyone as from_fiftyone
from .convert import to_fiftyone as to_fiftyone
from .services import database_folder as database_folder
