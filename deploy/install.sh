#!/bin/sh
# Puts the packages of a lock into .venv: install.sh base|dev
# Does nothing when the lock has not changed since the last time. dev contains base.
set -eu
cd "$(dirname "$0")/.."

lock="requirements/$1.txt"
stamp=".venv/installed-$1"
python=$(deploy/find-python.sh)
digest=$(cksum < "$lock")

installed() {
    [ "$(cat "$1" 2>/dev/null)" = "$2" ]
}

usable() {
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if usable; then
    if installed "$stamp" "$digest"; then exit 0; fi
    if [ "$1" = base ] && installed .venv/installed-dev "$(cksum < requirements/dev.txt)"; then
        exit 0
    fi
else
    echo "Making .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "This Python cannot make a virtual environment." >&2
        echo "Debian, Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "Installing $lock (only when it has changed; about a minute)"
rm -f "$stamp"
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input \
    --require-hashes --requirement "$lock"
echo "$digest" > "$stamp"
