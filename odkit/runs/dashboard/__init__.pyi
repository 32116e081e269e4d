from .show import say_unwatched as say_unwatched
from .show import show_run as show_run
