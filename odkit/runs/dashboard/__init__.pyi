from .charts import Series as Series
from .charts import chart as chart
from .charts import smoothed as smoothed
from .charts import thinned as thinned
from .progress import Progress as Progress
from .progress import duration as duration
from .show import say_unwatched as say_unwatched
from .show import show_run as show_run
