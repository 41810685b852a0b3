#!/usr/bin/env bash
# What only a GPU can answer, in under ten minutes once it is built.
#
#   scripts/gpu-check.sh build DIR               builds host, plugins and op tests with --features cuda into DIR. Needs nvcc and no GPU.
#   scripts/gpu-check.sh run DIR MODEL SST2      on a machine with a GPU: every op's parity in three precisions, the demo on GPU and CPU,
#                                                200 steps of SST-2 with LoRA in f32, bf16 and f16, with time and GPU memory.
#
# MODEL is a BERT's folder (scripts/fetch-minilm.sh), SST2 a folder with train.tsv and test.tsv (text, tab, 0 or 1).
# Exit status: 0 all right, 1 something is wrong, 77 there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,10s/^# \?//p' "$0" >&2; exit 2; }

build() {
  mkdir -p "$1"
  cargo build --release --locked --features fthost/cuda --package fthost
  cargo build --release --locked --package fthost-lora --package fthost-classification --package fthost-linear --package fthost-cosine
  cargo test --release --locked --no-run --package fthost-autograd --features cuda --test engine 2>&1 | tee "$1/engine.log"
  local target=${CARGO_TARGET_DIR:-target} engine
  engine=$(sed -n 's/.*(\(.*deps\/engine-[0-9a-f]*\)).*/\1/p' "$1/engine.log" | tail -n 1)
  cp "$engine" "$1/engine"
  cp "$target"/release/fthost "$target"/release/lib{lora,classification,linear,cosine}.so "$1"
  rm "$1/engine.log"
  echo "built into $1: $(du -sh "$1" | cut -f1)"
}

# Runs a command while the GPU's memory in use is looked at; prints seconds and the peak in MiB.
watched() {
  local log=$1 peak=0 used begun status
  shift
  begun=$(date +%s.%N)
  "$@" >"$log" 2>&1 &
  local process=$!
  while kill -0 $process 2>/dev/null; do
    used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0)
    [ "$used" -gt $peak ] && peak=$used
    sleep 0.2
  done
  status=0
  wait $process || status=$?
  printf '%s s, GPU memory up to %s MiB\n' "$(echo "$(date +%s.%N) - $begun" | bc | cut -c1-6)" "$peak"
  return $status
}

run() {
  local dir model sst2 work failed=0
  dir=$(cd "$1" && pwd) model=$(cd "$2" && pwd) sst2=$(cd "$3" && pwd) work=$(mktemp -d)
  nvidia-smi -L >/dev/null 2>&1 || { echo "skipped: there is no GPU here (nvidia-smi -L)"; exit 77; }
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  check() { # name, then a command that prints its figures
    local name=$1 figures
    shift
    if figures=$("$@"); then echo "ok      $name: $figures"; else
      echo "FAILED  $name: $figures"; tail -n 15 "$work/log" | sed 's/^/        /'; failed=1
    fi
  }

  # The op test says `skipped` where candle finds no device: that is a failure here.
  ops() { watched "$work/log" "$dir/engine" devices --nocapture && ! grep -q skipped "$work/log"; }
  check "every op in f32, bf16 and f16 against f64" ops

  demo() { watched "$work/log" "$dir/fthost" --plugin "$dir/liblora.so" --device "$1" --out "$work/demo-$1"; }
  check "the demo on the CPU" demo cpu
  check "the demo on the GPU" demo cuda
  agree() {
    python3 - "$work"/demo-{cpu,cuda}/result.json <<'P'
import json, sys
cpu, gpu = (json.load(open(f))["tasks"]["digits"]["metrics"]["accuracy"] for f in sys.argv[1:])
print(f"accuracy {cpu:.4f} on the CPU, {gpu:.4f} on the GPU")
sys.exit(abs(cpu - gpu) > 0.02)
P
  }
  check "the demo agrees" agree

  cat >"$work/sst2.toml" <<T
[model]
path = "$model"
[[task]]
name = "sst2"
head = { plugin = "classification" }
train = "$sst2/train.tsv"
test = "$sst2/test.tsv"
[[strategy]]
plugin = "lora"
[schedule]
plugin = "linear"
warmup = 0.06
[train]
steps = 200
batch_size = 16
lr = 1e-3
T
  sst2() {
    watched "$work/log" "$dir/fthost" "$work/sst2.toml" --device cuda --set "train.precision=$1" --out "$work/sst2-$1" || return
    python3 - "$work/sst2-$1/result.json" <<'P'
import json, math, sys
r = json.load(open(sys.argv[1])); t = r["train"]; m = r["tasks"]["sst2"]["metrics"]
print(f"        {t['steps']} steps in {t['seconds']:.2f} s, first step after {t['first_step_seconds']:.2f} s; accuracy {m['accuracy']:.4f}, loss {m['loss']:.4f}")
sys.exit(not (math.isfinite(m["loss"]) and m["accuracy"] > 0.7))
P
  }
  for precision in f32 bf16 f16; do check "SST-2, LoRA, 200 steps, $precision" sst2 $precision; done
  rm -rf "$work"
  exit $failed
}

case "${1:-}" in
  build) [ $# = 2 ] || usage; build "$2" ;;
  run) [ $# = 4 ] || usage; run "$2" "$3" "$4" ;;
  *) usage ;;
esac
