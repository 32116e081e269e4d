from .load import READERS as READERS
from .load import load_dataset as load_dataset
from .reader_base import list_images as list_images
from .write import WRITERS as WRITERS
from .write import convert as convert
from .write import write_dataset as write_dataset
