# shellcheck shell=bash
# The environment, sourced by run.sh and tests/run.sh: `use_environment requirements.txt`.
# An active virtualenv or conda environment is used as it is if it satisfies the requirements; otherwise it is
# left alone and .venv is made, once for each version of the requirements.

die() {
  echo "error: $*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
      echo "$candidate"
      return
    fi
  done
  die "found $(python3 --version 2>/dev/null || echo 'no Python'), expected Python 3.11 or 3.12;" \
    "install one, or name it: PYTHON=/path/to/python3.11"
}

# Prints the first requirement that the python on the PATH does not satisfy.
unsatisfied() {
  python - "$1" <<'PYTHON'
import importlib.metadata, pathlib, sys
try:
    from packaging.requirements import Requirement
except ImportError:
    sys.exit(print("packaging"))
def walk(path):
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            yield from walk(path.parent / line[3:])
        elif line and not line.startswith("#"):
            yield Requirement(line)
for requirement in walk(pathlib.Path(sys.argv[1])):
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(print(requirement, "(not installed)"))
    if not requirement.specifier.contains(found):
        sys.exit(print(f"{requirement} (found {found})"))
PYTHON
}

install() {
  local python
  python=$(find_python) || exit 1
  echo "installing $1 into .venv (log: .venv.log)"
  "$python" -m venv .venv >.venv.log 2>&1 ||
    die "$python -m venv .venv failed ($(tail -n 1 .venv.log)); on Debian and Ubuntu: apt-get install python3-venv"
  .venv/bin/python -m pip install --disable-pip-version-check -r "$1" >>.venv.log 2>&1 ||
    die "pip install -r $1 failed ($(grep -m 1 -i error .venv.log || tail -n 1 .venv.log)); see .venv.log, then run again"
  # SpeechBrain imports torchaudio, whose wheel links CUDA; without its extension it loads on a CPU-only torch.
  if .venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    rm -f .venv/lib/python3*/site-packages/torchaudio/lib/*.so
  fi
  cp requirements.txt .venv/requirements.txt
  cp "$1" ".venv/${1//\//-}"
}

installed() {
  cmp -s requirements.txt .venv/requirements.txt && cmp -s "$1" ".venv/${1//\//-}"
}

use_environment() {
  local missing
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ "${VIRTUAL_ENV:-}" != "$PWD/.venv" ]; then
    if missing=$(unsatisfied "$1"); then return; fi
    echo "the active environment ${VIRTUAL_ENV:-$CONDA_PREFIX} lacks ${missing:-a working python}; using .venv" >&2
  fi
  if ! installed "$1"; then
    exec 8>.venv.lock # of two commands in a fresh clone, one installs
    flock 8
    installed "$1" || install "$1"
    exec 8>&-
  fi
  export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
}

# nearest WORD CANDIDATE...: the candidate that looks most like the word.
nearest() {
  python3 -c 'import difflib, sys; print(difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1, 0)[0])' "$@"
}
