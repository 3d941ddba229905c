#!/bin/sh
# Prints a Python of the version that Lockstep needs, or says how to get one.
# PYTHON=/path/to/python overrides the search.
set -eu

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

for candidate in "${PYTHON:-python3.11}" python3.11 python3 python; do
    if path=$(command -v "$candidate") && new_enough "$path"; then
        echo "$path"
        exit 0
    fi
done

found=$(python3 --version 2>/dev/null || echo "no Python 3")
echo "Lockstep needs Python 3.11 or newer; this machine has: $found." >&2
echo "Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv)," >&2
echo "or name one: make run PYTHON=/path/to/python3.11" >&2
exit 1
