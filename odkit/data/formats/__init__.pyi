from .label_map import LabelMap as LabelMap
from .label_map import read_label_map as read_label_map
from .load import load_dataset as load_dataset
from .pbtxt import Message as Message
from .pbtxt import read_pbtxt as read_pbtxt
from .reader_base import list_images as list_images
from .write import convert as convert
from .write import write_dataset as write_dataset
