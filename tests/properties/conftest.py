"""One profile for all properties: the same examples each time, and no clock."""

from hypothesis import settings

settings.register_profile("odkit", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("odkit")
