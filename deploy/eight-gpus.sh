#!/usr/bin/env bash
# One machine with several GPUs: a process a GPU. odkit starts torchrun by itself.
#
#   deploy/eight-gpus.sh /data/photos retinanet_resnet50_fpn_v2 --epochs 24
#
# What stands after the detector are further options of `odkit train`.
set -euo pipefail
data=${1:?folder with images and labels}
detector=${2:-retinanet_resnet50_fpn_v2}
gpus=$(nvidia-smi --list-gpus | grep -c '^GPU ') # not the lines of MIG's parts: a process can use one of them

exec odkit train "$data" --repair --detector "$detector" --processes "$gpus" "${@:3}"
