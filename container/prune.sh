#!/bin/sh
# Remove from the environment what no program here uses. Each line was measured; a notebook or test that misses
# something is the reason to take its line out. Runs in the layer that installed it, so that the bytes never land.
set -eu
cd "$1"/lib/python3*/site-packages

rm -f  nvidia/cu*/lib/libcusolverMg.so.* # multi-GPU solvers, which torch does not link: 104 MB
rm -f  nvidia/cu*/lib/libnvrtc*.alt.so.* # a second compiler, used when asked for by a variable: 110 MB
rm -f  nvidia/nvshmem/lib/*.bc            # device code that only triton compiles, which is not here: 30 MB
find . -name '*.a' -delete               # static libraries, for linking C++ programs
rm -rf onnx/backend/test                 # examples of every operation, for testing runtimes: 17 MB
rm -rf nvidia/*/include torch/include torch/share torch/bin/protoc* # for compiling extensions: 85 MB
for package in matplotlib networkx pandas scipy skimage sklearn sympy; do # their tests: 120 MB
  [ ! -d "$package" ] || find "$package" -type d -name tests -prune -exec rm -rf {} +
done
