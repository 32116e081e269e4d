from . import services as services
from .browser import browse as browse
from .choose import choose_folder as choose_folder
from .choose import chosen_folder as chosen_folder
from .convert import from_fiftyone as from_fiftyone
from .convert import to_fiftyone as to_fiftyone
from .trial import try_it as try_it
