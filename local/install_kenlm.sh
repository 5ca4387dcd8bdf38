#!/usr/bin/env bash
# Builds KenLM's lmplz and build_binary, and its Python module, from its source distribution into the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./path.sh
version=0.3.0
use_environment requirements.txt
if command -v lmplz >/dev/null && command -v build_binary >/dev/null && python -c 'import kenlm, pygtrie' 2>/dev/null; then
  echo "KenLM is there: $(command -v lmplz)"
  exit
fi
remedy="on Debian and Ubuntu: apt-get install cmake g++ make zlib1g-dev libboost-program-options-dev \
libboost-system-dev libboost-test-dev libboost-thread-dev"
for tool in cmake g++ make; do
  command -v "$tool" >/dev/null || die "$tool is not there; $remedy"
done
for header in boost/program_options.hpp zlib.h; do # a library that lacks is cmake's to find
  echo "#include <$header>" | g++ -E -x c++ - >/dev/null 2>&1 || die "$header is not there; $remedy"
done
bin=$(dirname "$(command -v python)")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary kenlm --dest "$work" "kenlm==$version" ||
  die "pip download kenlm==$version failed; is there a network?"
tar -xzf "$work/kenlm-$version.tar.gz" -C "$work"
echo "building KenLM (a few minutes)"
build() {
  cmake -S "$work/kenlm-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$work/build" --parallel "$(nproc)" --target lmplz build_binary &&
    python -m pip install --disable-pip-version-check "$work/kenlm-$version.tar.gz" pygtrie==2.6.2
}
build >"$work/log" 2>&1 ||
  die "the build failed ($(grep -m 1 -E 'error: |^  "' "$work/log" || tail -n 1 "$work/log")); $remedy"
cp "$work/build/bin/lmplz" "$work/build/bin/build_binary" "$bin"
echo "installed $bin/lmplz, $bin/build_binary and the module kenlm"
