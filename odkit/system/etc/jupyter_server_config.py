"""Installed as etc/jupyter/jupyter_server_config.py of the environment, where its JupyterLab reads it.

The image has container/jupyter_server_config.py in its place. A person's own settings stand above both.
"""

c = get_config()  # type: ignore[name-defined]  # noqa: F821

# Kernels listen on ports of this machine, where any account can connect. They obey nobody who lacks their key, but
# would tell whoever asks what a cell prints and shows.
c.KernelManager.transport_encryption = "auto"

# The browser hands over its login on JupyterLab's own pages and on links to it, not with what other sites ask.
c.IdentityProvider.cookie_options = {"samesite": "Lax"}
