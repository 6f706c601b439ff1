#!/usr/bin/env bash
# Train with several processes on this machine (or several machines: NNODES, NODE_RANK, ...).
# Usage: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# Uses the GPUs, or gloo between processes on the CPU where there is none.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2
    exit 2
fi
config=$1 processes=$2
shift 2

tools=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$(dirname "$tools")${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${PYTHON:-python}" -m mmvitaccel.runner.launch \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$tools/train.py" "$config" --launcher pytorch "$@"
