from .cross_validation import cross_val_predict as cross_val_predict
from .replay import replay as replay
from .trainer import work as work
