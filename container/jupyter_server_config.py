"""JupyterLab as the image serves it: one port, always a token or password, nothing fetched from elsewhere."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.ServerApp.ip = os.environ.get("JUPYTER_IP", "0.0.0.0")  # the container's; docker's -p says who reaches it
c.ServerApp.port = int(os.environ.get("JUPYTER_PORT", "8888"))
c.ServerApp.port_retries = 0  # another port would not be published
c.ServerApp.base_url = os.environ.get("JUPYTER_BASE_URL", os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
c.ServerApp.root_dir = os.environ.get("ODKIT_WORK", "/work")
c.ServerApp.open_browser = False
c.ServerApp.quit_button = False  # the container is what is stopped
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"

# JUPYTER_TOKEN is Jupyter's own variable; without it a token is made up at each start. A password comes as the hash
# that `jupyter server password` writes, and takes the token's place.
if os.environ.get("JUPYTER_PASSWORD_HASH"):
    c.PasswordIdentityProvider.hashed_password = os.environ["JUPYTER_PASSWORD_HASH"]
    c.PasswordIdentityProvider.password_required = True

# As in odkit/system/etc/jupyter_server_config.py, in whose place this file stands: nobody listens in to a kernel, and
# other sites get no use of the login.
c.KernelManager.transport_encryption = "auto"
c.IdentityProvider.cookie_options = {"samesite": "Lax"}

# FiftyOne's App listens on a unix socket and is reached as BASE_URL/fiftyone/, behind the token (see
# odkit/browsing/services.py); so is what a person starts on this machine, as BASE_URL/proxy/PORT/, and no other host.
c.ServerProxy.host_allowlist = ["localhost", "127.0.0.1"]

# Works the same without a network.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
