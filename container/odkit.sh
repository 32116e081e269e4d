#!/bin/sh
# `odkit` in a shell of the container. `docker exec` comes in as root: what it writes would belong to root, so it
# becomes the owner of /work first, as the container itself does.
[ "$(id -u)" != 0 ] || exec python -I /opt/odkit/start.py --become /opt/venv/bin/odkit "$@"
exec /opt/venv/bin/odkit "$@"
