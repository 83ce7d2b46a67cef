#!/bin/sh
# Makes .venv from the locks; does nothing when it is already what the locks say.
# PYTHON names the interpreter to use (default python3).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.installed

if ! command -v "$python" >/dev/null 2>&1; then
    echo "install: $python was not found. Install Python 3.11 or newer, or name it: make install PYTHON=/path/to/python" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "install: $("$python" --version) is too old; Python 3.11 or newer is needed (make install PYTHON=python3.11)." >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    echo "install: the 'venv' module of $python is missing. On Debian or Ubuntu: apt install python3-venv; on Fedora: dnf install python3-pip." >&2
    exit 1
fi

wanted=$(cat requirements/train.lock requirements/train-cuda.lock requirements/dev.lock | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c 'import torch' 2>/dev/null; then
    exit 0
fi
echo "install: making .venv from requirements/train.lock and dev.lock (a minute or two)"
# A .venv without pip was interrupted while it was made.
[ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile "$@"; }
pip_install -r requirements/train.lock -r requirements/dev.lock
if ! .venv/bin/python -c 'import torch' 2>.venv/torch-import.log; then
    if grep -q -i -E 'cuda|cudnn|nvidia|nccl|cublas|cusparse|nvrtc|nvtx|cufft|curand|cusolver|cufile|nvshmem' .venv/torch-import.log; then
        echo "install: this torch is the CUDA build; adding its NVIDIA libraries from requirements/train-cuda.lock"
        pip_install -r requirements/train-cuda.lock
    fi
    .venv/bin/python -c 'import torch' || { echo "install: torch does not import; the reason is above." >&2; exit 1; }
fi
echo "$wanted" >"$stamp"
echo "install: done"
