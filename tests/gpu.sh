#!/usr/bin/env bash
# Measures the preset `convnet` on GPUs, and in PyTorch if it is installed, and prints a Markdown table, and then one
# of the presets for color images:
#
#     tests/gpu.sh [cuda:0 wgpu:0 ...]
#
# First compares the results of each device with the CPU's. "cold" is the first epoch of the first process, in
# which kernels are compiled and tuned; "warm" is an epoch of a later process. Networks that are
# trained in 16 bits are evaluated in 32 bits.
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

# Trains on a device, and prints the seconds of the last epoch and the test accuracy.
train() {
    local device=$1 precision=$2 epochs=$3 name="${1//:/-}-$2-$3"
    "$trainer" -q --device "$device" --precision "$precision" --validation 0 --epochs "$epochs" \
        --out "$folder" --run-name "$name" >/dev/null || return
    python3 - "$folder/$name" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
seconds = [0.0] + [line["seconds"] for line in lines if line["event"] == "epoch"]
accuracy = json.load(open(sys.argv[1] + "/evaluation.json"))["accuracy"]
print(f"{seconds[-1] - seconds[-2]:.1f} {accuracy:.2%}")
PYTHON
}

echo '| | train 64 | 512 | 4096 | inference 64 | 512 | 4096 | epoch, cold | warm | accuracy after 3 |'
echo '|---|---|---|---|---|---|---|---|---|---|'
for device in "${devices[@]}"; do
    # A new cache of tuned kernels, so that the first process has to tune them.
    export XDG_CACHE_HOME="$folder/cache-${device//:/-}" CUBECL_ENVIRONMENT="gpu-$$-${device//:/-}"
    for precision in f32 bf16 f16; do
        # A device may not support 16 bits. Other errors end the script.
        if ! cold=$(train "$device" "$precision" 1 2>"$folder/error"); then
            cat "$folder/error" >&2
            grep -q 'cannot compute in' "$folder/error" && continue
            exit 1
        fi
        warm=$(train "$device" "$precision" 3)
        printf 'preset = "convnet"\ntraining.precision = "%s"\n' "$precision" >"$folder/settings.toml"
        "$trainer" bench -q --json --config "$folder/settings.toml" --device "$device" \
            --train 64,512,4096 --inference 64,512,4096 >"$folder/bench"
        python3 - "$folder/bench" "${cold% *}" "${warm% *}" "${warm#* }" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
speeds = [f"{speed['images_per_second']:,.0f}" for speed in report["train"] + report["inference"]]
print("| " + " | ".join([f"{report['device']} {report['precision']}", *speeds, *sys.argv[2:]]) + " |")
PYTHON
    done
done

echo
echo '| | train 64 | 512 | inference 1 | 64 | 512 |'
echo '|---|---|---|---|---|---|'
for device in "${devices[@]}"; do
    for preset in vgg resnet9 cifar; do
        for precision in f32 bf16; do
            printf 'preset = "%s"\ntraining.precision = "%s"\n' "$preset" "$precision" >"$folder/settings.toml"
            if ! "$trainer" bench -q --json --config "$folder/settings.toml" --device "$device" \
                --train 64,512 --inference 1,64,512 >"$folder/bench" 2>"$folder/error"; then
                cat "$folder/error" >&2
                grep -q 'cannot compute in' "$folder/error" && continue
                exit 1
            fi
            python3 - "$folder/bench" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
speeds = [f"{speed['images_per_second']:,.0f}" for speed in report["train"] + report["inference"]]
print("| " + " | ".join([f"{report['preset']}, {report['device']} {report['precision']}", *speeds]) + " |")
PYTHON
        done
    done
done

if python3 -c 'import torch' 2>/dev/null; then
    kind=$(python3 -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    for mode in 'eager f32' 'compiled f32' 'eager bf16' 'compiled bf16'; do
        # shellcheck disable=SC2086 # two arguments
        python3 tests/gpu/torch_convnet.py "$kind" $mode || echo "| PyTorch, $mode | failed |" >&2
    done
fi
