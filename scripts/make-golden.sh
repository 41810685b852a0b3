#!/usr/bin/env bash
# Builds the plugins of tests/golden/1.0, once, when the boundary freezes: scripts/make-golden.sh. From then on they are never built again:
# what they prove is that a file of that day loads. A later minor gets a folder of its own beside them.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=tests/golden/1.0
if [ -n "$(git status --porcelain -- plugin-api plugins tests/c_plugin Cargo.lock)" ]; then
    echo "commit the sources first: the files name the commit that they were built from" >&2
    exit 1
fi
target=${CARGO_TARGET_DIR:-target}
cargo build --locked --release -p fthost-lora -p fthost-cosine -p fthost-classification -p fthost-l2sp
mkdir -p "$folder"
for name in lora cosine classification l2sp; do
    strip --strip-all -o "$folder/lib$name.so" "$target/release/lib$name.so"
done
cc -std=c11 -O2 -shared -fPIC -s -I plugin-api/include -o "$folder/libc_constant.so" tests/c_plugin/constant.c
chmod 644 "$folder"/*.so
{
    echo "Built by scripts/make-golden.sh from commit $(git rev-parse HEAD), for ABI 1.0, on $(uname -sm)."
    echo "lora, cosine, classification, l2sp: the release profile, $(rustc --version); then strip --strip-all."
    echo "c_constant: tests/c_plugin/constant.c, $(cc --version | head -1), -O2 -s."
    echo
    (cd "$folder" && sha256sum ./*.so)
} > "$folder/ORIGIN.txt"
ls -l "$folder"
