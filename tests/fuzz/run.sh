#!/usr/bin/env bash
# Runs fuzz targets for $1 seconds each: those in the arguments after it, or all. What is new goes to target/fuzz/corpus,
# what breaks a property to target/fuzz/artifacts: make a seed of it in tests/fuzz/corpus, which `make test` runs.
set -euo pipefail
cd "$(dirname "$0")"
seconds=$1
shift
export PATH=$PWD/../../.tools/cargo-fuzz/bin:$PATH CARGO_TARGET_DIR=$PWD/../../target/fuzz/build
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || for file in targets/*.rs; do targets+=("$(basename "$file" .rs)"); done

# The address sanitizer is nightly's; on stable the coverage that guides the fuzzer has to do.
sanitizer=(--sanitizer none)
toolchain=()
if command -v rustup >/dev/null && rustup toolchain list | grep --quiet ^nightly; then
    toolchain=(+nightly)
    sanitizer=()
else
    export RUSTC_BOOTSTRAP=1
fi
failed=()
for target in "${targets[@]}"; do
    new=../../target/fuzz/corpus/$target found=../../target/fuzz/artifacts/$target
    mkdir -p "$new" "$found"
    printf 'fuzz: %s for %s seconds\n' "$target" "$seconds" >&2
    cargo "${toolchain[@]}" fuzz run --fuzz-dir . "${sanitizer[@]}" "$target" "$new" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -print_final_stats=1 -artifact_prefix="$found/" \
        2>"$found/log" || failed+=("$target")
    grep -E 'number_of_executed_units|panicked|SUMMARY|Test unit written' -A 1 "$found/log" >&2 || tail -n 20 "$found/log" >&2
done
[[ ${#failed[@]} == 0 ]] || { printf 'fuzz: these broke a property: %s\n' "${failed[*]}" >&2; exit 1; }
