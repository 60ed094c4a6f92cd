#!/usr/bin/env bash
# The linker of the filter: rust-lld without the exports for which the filter has nothing to do. The SDK exports every
# callback of the ABI, and Envoy calls each that is there: two of them, with nothing behind, at the end of each request.
set -euo pipefail
arguments=()
while (($# > 0)); do
    if [[ $1 == --export && ${2:-} =~ ^proxy_on_(done|log|foreign_function|queue_ready|new_connection)$ ]] ||
        [[ $1 == --export && ${2:-} =~ ^proxy_on_(grpc|upstream|downstream)_ ]]; then
        shift 2
        continue
    fi
    arguments+=("$1")
    shift
done
host=$(rustc --version --verbose | sed -n 's/^host: //p')
# Beside the compiler where rustup put it, otherwise where the system has it.
PATH=$(rustc --print sysroot)/lib/rustlib/$host/bin:$PATH exec rust-lld "${arguments[@]}"
