#!/bin/sh
# Writes requirements/base.txt, dev.txt and aws.txt, with hashes, from the .in files. Reaches the registry.
set -eu
cd "$(dirname "$0")/.."

python=$(deploy/find-python.sh)
[ -x .venv-lock/bin/uv ] || {
    "$python" -m venv .venv-lock
    .venv-lock/bin/python -m pip install --quiet --quiet --disable-pip-version-check uv
}
for name in base dev aws; do
    .venv-lock/bin/uv pip compile "requirements/$name.in" --output-file "requirements/$name.txt" \
        --generate-hashes --python-version 3.11 --no-header --upgrade --quiet
done
git --no-pager diff --stat -- requirements
