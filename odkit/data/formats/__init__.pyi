from .load import load_dataset as load_dataset
from .write import convert as convert
from .write import write_dataset as write_dataset
