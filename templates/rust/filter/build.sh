#!/bin/sh
# Builds my-plugin.wasm, and adds Rust's WebAssembly target where rustup manages the toolchain and it is missing.
set -eu
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
rustup target add "$target" 2>/dev/null || true
cargo build --release --target "$target" --target-dir "${CARGO_TARGET_DIR:-target}"
cp "${CARGO_TARGET_DIR:-target}/$target/release/my_plugin.wasm" my-plugin.wasm
