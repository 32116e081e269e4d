from .show import show_run as show_run
