#!/usr/bin/env bash
# Two machines (or more) that share a folder: run this on each, with the same run folder.
#
#   HEAD=10.0.0.1 NODES=2 GPUS=8 deploy/two-machines.sh /shared/data/photos /shared/runs first-try --epochs 24
#
# The first machine to come writes the run folder; all of them then join through HEAD, which is one of them, at PORT.
# In docker, give each container the machine's own network and memory, and InfiniBand (no --device where there is none):
#   docker run --rm --gpus all --network host --ipc host --ulimit memlock=-1 --device /dev/infiniband \
#     --user "$(id -u):$(id -g)" -e HEAD=10.0.0.1 -e NODES=2 -e GPUS=8 -v /shared:/shared -v ./deploy:/deploy:ro \
#     odkit /deploy/two-machines.sh /shared/data/photos /shared/runs first-try --epochs 24
# What stands after the name are further options of `odkit train`. Run it again on each to go on after a stop.
set -euo pipefail
data=${1:?folder with images and labels, on every machine at the same path}
folder=${2:?shared folder for runs}
name=${3:?name of the run}
: "${HEAD:?address of one of the machines}" "${NODES:=2}" "${GPUS:=8}" "${PORT:=29500}"

mkdir -p "$folder"
claim=$folder/.$name.claim
if mkdir "$claim" 2>/dev/null; then
    trap 'rmdir "$claim"' EXIT # a failed start leaves nothing behind that others would wait for
    odkit train "$data" --repair --folder "$folder" --name "$name" --batch-size $((16 * NODES * GPUS)) --prepare \
        "${@:4}"
    touch "$claim/ready"
    trap - EXIT
fi
until [ -e "$claim/ready" ]; do
    [ -d "$claim" ] || { echo "$folder/$name was not prepared; see what the first machine says" >&2; exit 1; }
    sleep 1
done

# torchrun's own store would outlive a restart, and processes started again would look for the old ones' addresses.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes "$NODES" --nproc-per-node "$GPUS" --max-restarts 3 --rdzv-backend c10d \
    --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$name" -m odkit worker "$folder/$name"
