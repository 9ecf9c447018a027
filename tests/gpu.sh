#!/usr/bin/env bash
# The table of speeds on this machine's accelerators, in Markdown, beside PyTorch where python3 has it:
#
#     tests/gpu.sh [cuda:0 wgpu:0 ...]
#
# Checks first that each device computes what the CPU does. "cold" is the first epoch of the first process,
# in which kernels are compiled and tuned; "warm" is one in a later process.
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
    "$trainer" bench -q --json --device "$device" --train 64,512,4096 --inference 64,512,4096 >"$folder/bench"
    python3 - "$folder/bench" "$cold" "$warm" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
speeds = [speed["images_per_second"] for speed in report["train"] + report["inference"]]
columns = [report["device"], *(f"{speed:,.0f}" for speed in speeds), *sys.argv[2:]]
print("| " + " | ".join(columns) + " |")
PYTHON
done

if python3 -c 'import torch' 2>/dev/null; then
    kind=$(python3 -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    for mode in eager compiled; do
        python3 tests/gpu/torch_convnet.py "$kind" "$mode" || echo "| PyTorch, $mode | failed |" >&2
    done
fi
