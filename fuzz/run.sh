#!/usr/bin/env bash
# Runs every fuzz target for some seconds each, 60 by default: fuzz/run.sh [SECONDS [TARGET...]]
# Needs cargo-fuzz (cargo install cargo-fuzz --locked) and a C++ compiler. Inputs that reach new code are kept in
# fuzz/artifacts/corpus, crashes in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"

# cargo-fuzz passes unstable options to the compiler, which RUSTC_BOOTSTRAP permits in the pinned version.
export RUSTC_BOOTSTRAP=1

seconds=${1:-60}
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

cargo fuzz build
for target in "${targets[@]}"; do
    found=artifacts/corpus/$target
    mkdir -p "$found"
    seeds=("corpus/$target")
    [ "$target" != weights ] || seeds+=(../tests/weights)
    cargo fuzz run "$target" "$found" "${seeds[@]}" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
done
