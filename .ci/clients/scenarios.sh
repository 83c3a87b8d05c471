# What the scenarios in bash share: how one is run and told, names, and the records. A script sources this with its own arguments,
# which are ADDRESS [short | SCENARIO…], defines a function for each scenario, and ends with `run_scenarios NAME…`.
# Says `ok NAME` or `failed NAME: why`; ends with 1 if one failed.
set -euo pipefail

address=$1
chosen=("${@:2}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A name that no other run knows.
fresh() { printf '%s-%s\n' "$1" "$(head -c 4 /dev/urandom | od -An -tx1 | tr -d ' ')"; }
lines() { seq -f "$1%g" "$2"; }
# equal FOUND EXPECTED
equal() {
    [ "$1" = "$2" ] || {
        printf 'found %.200s, expected %.200s\n' "${1//$'\n'/ }" "${2//$'\n'/ }" >&2
        return 1
    }
}
# has TEXT PATTERN…: every pattern is in a line of the text.
has() {
    local text=$1 pattern
    shift
    for pattern in "$@"; do
        grep -qE -- "$pattern" <<<"$text" || {
            printf 'no %s in: %.600s\n' "$pattern" "${text//$'\n'/ }" >&2
            return 1
        }
    done
}
# until_has PATTERN COMMAND…: asks until the pattern is in what it says, at most half a minute.
until_has() {
    local pattern=$1 said ends=$((SECONDS + 30))
    shift
    while said=$("$@" 2>&1) || true; ! grep -qE -- "$pattern" <<<"$said"; do
        [ "$SECONDS" -lt "$ends" ] || has "$said" "$pattern" || return 1
        sleep 0.2
    done
}

# Ends what a scenario has left running.
end_jobs() {
    local each
    for each in $(jobs -p); do kill -9 "$each" 2>/dev/null || true; done
}

run_scenarios() {
    local name began status failed=0
    for name in "$@"; do
        case " ${chosen[*]:-short} " in *" short "* | *" $name "*) ;; *) continue ;; esac
        began=$SECONDS
        # Not in a condition: its first failure would not end it there.
        set +e
        (
            set -e
            trap end_jobs EXIT
            "${name//-/_}"
        ) 2>"$scratch/errors"
        status=$?
        set -e
        cat "$scratch/errors" >&2
        printf '%s: %s s\n' "$name" "$((SECONDS - began))" >&2
        if [ "$status" = 0 ]; then
            printf 'ok %s\n' "$name"
        else
            failed=1
            # The last that was said, without librdkafka's notes and the places of exceptions.
            printf 'failed %s: %s\n' "$name" "$({ grep -vE '^%[4-7]|^\s*at ' "$scratch/errors" || true; } | tail -3 | tr '\n' ' ' | cut -c 1-300)"
        fi
    done
    exit $failed
}
