#!/usr/bin/env bash
# Tests against programs that Debian packages: Chromium, nginx, tinyproxy and squid. Installs those that are missing, which needs
# root, and runs examples/test-debian on the built workspace. Arguments go to vitest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where Debian keeps servers, which is not on everybody's path
export PATH="$PATH:/usr/sbin"

missing=()
for program in chromium nginx tinyproxy squid; do
  command -v "$program" > /dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get > /dev/null || { echo "install ${missing[*]}: there is no apt-get to do it" >&2; exit 1; }
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

npx tsc -b
exec npx vitest run --config examples/vitest.debian.config.ts "$@"
