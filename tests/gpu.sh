#!/usr/bin/env bash
# The table of speeds on this machine's accelerators, in Markdown, beside PyTorch where python3 has it:
#
#     tests/gpu.sh [cuda:0 wgpu:0 ...]
#
# Checks first that each device computes what the CPU does. "cold" is the first epoch of the first process,
# in which kernels are compiled and tuned; "warm" is one in a later process. What learns in 16 bits predicts in 32.
set -euo pipefail
cd "$(dirname "$0")/.."

devices=("$@")
[ "$#" -gt 0 ] || devices=(cuda:0 wgpu:0)
features=$(printf '%s\n' "${devices[@]}" | sed 's/:.*//' | sort -u | paste -sd, -)
cargo build -p trainer --features "$features"
trainer=target/debug/trainer
"$trainer" devices --check "${devices[@]}" >&2

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Seconds of the last epoch of a training on a device.
seconds() {
    "$trainer" -q --device "$1" --validation 0 --epochs "$2" --out "$folder" --run-name "$3" >/dev/null
    python3 - "$folder/$3/metrics.jsonl" <<'PYTHON'
import json, sys
epochs = [json.loads(line) for line in open(sys.argv[1])]
epochs = [epoch["seconds"] for epoch in epochs if epoch["event"] == "epoch"]
print(f"{epochs[-1] - (epochs[-2] if len(epochs) > 1 else 0):.1f}")
PYTHON
}

echo '| | train 64 | 512 | 4096 | inference 64 | 512 | 4096 | epoch, cold | warm |'
echo '|---|---|---|---|---|---|---|---|---|'
for device in "${devices[@]}"; do
    # A folder of its own for what is tuned, so that the first run finds nothing.
    export XDG_CACHE_HOME="$folder/cache-${device//:/-}" CUBECL_ENVIRONMENT="gpu-$$-${device//:/-}"
    cold=$(seconds "$device" 1 "cold-${device//:/-}")
    warm=$(seconds "$device" 3 "warm-${device//:/-}")
    for precision in f32 bf16 f16; do
        printf 'preset = "convnet"\ntraining.precision = "%s"\n' "$precision" >"$folder/settings.toml"
        "$trainer" bench -q --json --config "$folder/settings.toml" --device "$device" \
            --train 64,512,4096 --inference 64,512,4096 >"$folder/bench" || continue
        python3 - "$folder/bench" "$precision" "$cold" "$warm" <<'PYTHON'
import json, sys
report, precision, epochs = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3:]
speeds = report["train"] + report["inference"]
columns = [f"{speed['images_per_second']:,.0f}" for speed in speeds] + epochs
if precision != "f32":
    columns[3:] = [""] * 5
print("| " + " | ".join([f"{report['device']} {precision}", *columns]) + " |")
PYTHON
    done
done

if python3 -c 'import torch' 2>/dev/null; then
    kind=$(python3 -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    for mode in 'eager f32' 'compiled f32' 'eager bf16' 'compiled bf16'; do
        # shellcheck disable=SC2086 # two arguments
        python3 tests/gpu/torch_convnet.py "$kind" $mode || echo "| PyTorch, $mode | failed |" >&2
    done
fi
