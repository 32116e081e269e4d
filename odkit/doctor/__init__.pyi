from .checks import check as check
from .gpu import best_device as best_device
from .gpu import compute_steps as compute_steps
from .gpu import precision_support as precision_support
from .speed import detector_speeds as detector_speeds
