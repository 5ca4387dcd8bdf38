#!/usr/bin/env bash
# The tests: ./tests/run.sh [pytest options]. Tests on real speech take its root from HOURGLASS_DATA, or skip.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./path.sh
use_environment tests/requirements.txt
exec python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
