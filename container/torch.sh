#!/bin/sh
# Install PyTorch: torch.sh VENV PINS CUDA INDEX
#
# Without CUDA, from the package index, as the lock has it, hashes checked. With one (cpu, 126, ...), the same versions
# of torch and torchvision from PyTorch's own INDEX, and the CUDA libraries that this torch itself asks for, which are
# others than the lock's. The lock knows no hashes of these files; what the index says of each is what pip checks.
set -eu
venv=$1 pins=$2 cuda=$3 index=$4
if [ -z "$cuda" ]; then
  exec "$venv/bin/pip" install --no-cache-dir --no-deps --require-hashes -r "$pins"
fi

case $cuda in cpu) index=$index/cpu ;; *) index=$index/cu$cuda ;; esac
install() { "$venv/bin/pip" install --no-cache-dir --index-url "$index" "$@"; }
chosen=$(mktemp)
grep -oE '^(torch|torchvision)==[^ ]+( ;[^\\]*)?' "$pins" > "$chosen"
install --no-deps -r "$chosen"
"$venv/bin/python" > "$chosen" -c "
from importlib.metadata import requires
print(*(line for line in requires('torch') or () if line.startswith(('nvidia-', 'cuda-'))), sep='\n')"
if grep -q . "$chosen"; then install -r "$chosen"; fi # they need nothing but each other
rm "$chosen"
