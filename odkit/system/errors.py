"""The one base of the errors that are meant for people; any other is a fault of ours and keeps its traceback."""


class OdkitError(Exception):
    """An error meant for people: its message says what is wrong, where (file, image, box), and what to do."""
