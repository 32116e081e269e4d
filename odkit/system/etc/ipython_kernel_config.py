"""Installed as etc/ipython/ipython_kernel_config.py of the environment, where every IPython kernel reads it."""

c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.InteractiveShellApp.extensions.append("odkit.system.kernel")
