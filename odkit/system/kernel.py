"""What every Jupyter kernel of this environment loads as it starts (an IPython extension; see etc/ beside it).

ipykernel 7.1 to 7.3 sends a shell reply directly on the socket that its ZMQStream reads requests from. Sending takes
the socket's wake-up with it, so a request that arrives just then lies unread until the next connection: its cell
shows [*] for good, while the kernel says it is idle (https://github.com/ipython/ipykernel/issues/1554, mended in 7.4,
which the dashboard's buttons rule out; see pyproject.toml). Sending through the stream looks for requests again.
"""

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Let replies on the shell channel go through the stream that reads its requests.

    Args:
        shell: IPython's InteractiveShell. One without a kernel, or whose kernel has no subshells, stays as it is.
    """
    kernel = getattr(shell, "kernel", None)
    thread = getattr(kernel, "shell_channel_thread", None)
    manager: Any = getattr(thread, "manager", None)
    if kernel is not None and hasattr(manager, "_shell_socket"):
        manager._shell_socket = kernel.shell_stream
