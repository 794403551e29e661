#!/usr/bin/env bash
# TensorFlow 2.21.0 keeps what XLA compiled in a directory (--tf_xla_persistent_cache_directory), and a
# compiled function fails where its cache does, though all it needs to compile is there:
# - an entry cut short (a copy that was broken off; TensorFlow itself renames whole files) raises
#   OutOfRangeError, an empty one InvalidArgumentError, at every call and in every later process, since
#   nothing replaces or removes it;
# - an entry that cannot be written (a full disk; here a limit of the size of files) raises after the
#   compilation has succeeded, at every call, and each try leaves one more .tmp file.
# One would guess that a cache is passed over then, with a warning.
#
# Seen with Python 3.11, NumPy 2.4.6, on processors:
#   TensorFlow 2.21.0, first process: 2.0, 2.0
#   whole entry: 2.0, 2.0
#   half an entry: OutOfRangeError, OutOfRangeError; the entry is still there
#   empty entry: InvalidArgumentError, InvalidArgumentError; the entry is still there
#   entry that cannot be written: OutOfRangeError, OutOfRangeError; 2 files .tmp
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    tensorflow==2.21.0 numpy==2.4.6
cat > "$folder/double.py" <<'PYTHON'
import tensorflow as tf


@tf.function(jit_compile=True)
def double(x):
    return 2 * x


def outcome():
    try:
        return str(float(double(tf.ones([]))))
    except tf.errors.OpError as error:
        return type(error).__name__


print(outcome(), outcome(), sep=", ")
PYTHON
cache=$folder/cache
export CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3
export TF_XLA_FLAGS="--tf_xla_persistent_cache_directory=$cache"
double() {
    "$folder/venv/bin/python" -B "$folder/double.py" 2> /dev/null
}
expect() {
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "what XLA's cache does has changed, not: $3"; exit 1; }
}
entry_is_there() {
    [ "$(stat --format %s "$entry")" = "$1" ] && echo "; the entry is still there"
}

expect "TensorFlow 2.21.0, first process" "$(double)" "2.0, 2.0"
entry=$(ls "$cache"/*.pb)
expect "whole entry" "$(double)" "2.0, 2.0"
half=$(($(stat --format %s "$entry") / 2))
truncate --size "$half" "$entry"
expect "half an entry" "$(double)$(entry_is_there "$half")" \
    "OutOfRangeError, OutOfRangeError; the entry is still there"
truncate --size 0 "$entry"
expect "empty entry" "$(double)$(entry_is_there 0)" \
    "InvalidArgumentError, InvalidArgumentError; the entry is still there"
rm "$entry"
found=$(ulimit -f 1; double)
expect "entry that cannot be written" "$found; $(ls "$cache" | grep -c '\.tmp$') files .tmp" \
    "OutOfRangeError, OutOfRangeError; 2 files .tmp"
