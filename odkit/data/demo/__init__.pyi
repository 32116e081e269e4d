from .dataset import demo_dataset as demo_dataset
from .dataset import write_demo as write_demo
