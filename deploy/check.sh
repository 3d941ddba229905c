#!/bin/sh
# What `make check` does; every step runs, the failed ones are named at the end.
set -u
cd "$(dirname "$0")/.."
export LOCKSTEP_PROFILE=test
bin=.venv/bin
failed=""

step() {
    name=$1
    shift
    printf '%s … ' "$name"
    if output=$("$@" 2>&1); then
        echo "ok"
    else
        echo "FAILED"
        printf '%s\n' "$output"
        failed="$failed, $name"
    fi
}

# Throw-away values: what production would check with its own.
under_production() {
    key=$($bin/python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())')
    env LOCKSTEP_PROFILE=production \
        LOCKSTEP_DATA_DIR="$scratch" \
        LOCKSTEP_SECRET_KEY="$key$key" \
        LOCKSTEP_ENCRYPTION_KEYS="check:$key" \
        LOCKSTEP_ALLOWED_HOSTS=lockstep.example \
        LOCKSTEP_ALLOWED_NETWORKS=public \
        DATABASE_URL=postgresql://nobody@127.0.0.1:1/nothing \
        REDIS_URL=redis://127.0.0.1:1/0 \
        $bin/python manage.py check --deploy --fail-level WARNING
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

step "lint" $bin/ruff check .
step "format" $bin/ruff format --check .
step "insecure patterns" $bin/bandit -q -c pyproject.toml -r apps config deploy manage.py \
    -x apps/connectors,apps/engine
# There SQL is made of names that one function of each dialect quotes; values are parameters.
step "insecure patterns below" $bin/bandit -q -c pyproject.toml -r apps/connectors apps/engine \
    -s B404,B603,B607,B608
step "types" $bin/mypy
step "architecture" $bin/lint-imports
step "settings" $bin/python manage.py check
step "settings in production" under_production
step "reference and OpenAPI document" $bin/python manage.py write_reference --check
step "migrations" $bin/python manage.py makemigrations --check --dry-run
printf 'known vulnerabilities … '
$bin/python deploy/audit.py
[ $? -ne 1 ] || failed="$failed, known vulnerabilities"

if [ -n "$failed" ]; then
    echo "Failed: ${failed#, }"
    exit 1
fi
echo "All checks passed."
