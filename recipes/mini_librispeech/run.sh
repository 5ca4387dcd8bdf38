#!/usr/bin/env bash
set -euo pipefail
exec "$(dirname "$0")/../../run.sh" recipe=mini_librispeech "$@"
