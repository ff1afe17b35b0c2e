#!/bin/sh
# Builds my-plugin.wasm, with the componentize-py of this version, which it installs into .tools unless it is there.
set -eu
cd "$(dirname "$0")"
tools=${TOOLS:-.tools} version=0.25.1
if [ ! -e "$tools/componentize-py-$version" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$version"
    touch "$tools/componentize-py-$version"
fi
"$tools/bin/componentize-py" -d wit -w filter-plugin componentize --stub-wasi app -o my-plugin.wasm
