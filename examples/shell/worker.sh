#!/usr/bin/env bash
# A worker for longhaul in a few lines of shell, with grpcurl and jq: counts the words of a text, line by line.
# One job at a time; it asks for a lease that is long enough for any one line, and renews it as it reports progress.
set -euo pipefail

server=${LONGHAUL_SERVER:-127.0.0.1:3000}

# try METHOD ARGUMENT...: a method of the service; the request is made of jq's arguments, the answer is JSON.
try() {
    jq -n "${@:2}" '$ARGS.named' |
        grpcurl -plaintext -connect-timeout 3 -max-time 20 -d @ "$server" "longhaul.v1.WorkerService/$1"
}

# call METHOD ARGUMENT...: the same, until there is an answer. A report that comes twice does no harm.
call() {
    local status
    while true; do
        try "$@" && return || status=$?
        case $status in
            1 | 68 | 78 | 143) sleep 1 ;; # no connection, DEADLINE_EXCEEDED, UNAVAILABLE, SIGTERM to all of us
            *) return "$status" ;;
        esac
    done
}

# report FRACTION: tells how far the work is, and fails if the server does not want it to go on.
report() {
    call Heartbeat --argjson reports "[{\"lease_token\": \"$token\", \"progress\": {\"fraction\": $1}}]" |
        jq -e '.directives[0].action == "RENEWED"' >/dev/null
}

# work: does a job, and prints its result. (`set -e` has no effect in a function whose end is asked for.)
work() {
    local line count words=0 number=0 offset=0
    text=$(jq -er '.text | strings' <<<"$input") || return
    lines=$(wc -l <<<"$text")
    while IFS= read -r line; do
        report "$((100 * number / lines))e-2" || return
        count=$(wc -w <<<"$line")
        # Bytes are base64 in JSON. Output is named by its offset, so that a repeat does no harm.
        data=$(printf '%4d  %s\n' "$count" "$line" | base64 | tr -d '\n')
        call AppendOutput --arg lease_token "$token" --arg data "$data" --argjson offset "$offset" >/dev/null || return
        offset=$((offset + $(base64 -d <<<"$data" | wc -c))) words=$((words + count)) number=$((number + 1))
    done <<<"$text"
    jq -n --argjson lines "$lines" --argjson words "$words" '$ARGS.named'
}

# serve: takes a job after the other for as long as $running is there. Ctrl-C reaches all of us, but what is under way is finished.
serve() {
    local leased token input result
    trap '' TERM INT
    while [ -e "$running" ]; do
        leased=$(try LeaseJobs --arg worker_id "$(uname -n)-$$" --argjson kinds '["count-words"]' \
            --arg wait 5s --arg lease_duration 60s) || { sleep 1; continue; }
        token=$(jq -r '.assignments[0].leaseToken // empty' <<<"$leased")
        [ "$token" ] || continue
        input=$(jq -r '.assignments[0].inputJson' <<<"$leased")
        # A success is refused where a cancel came first. Then, too, all that is left to say is that the work has stopped.
        { result=$(work) && call CompleteJob --arg lease_token "$token" --arg result_json "$result"; } ||
            call FailJob --arg lease_token "$token" \
                --argjson failure '{"reason": "EXIT_CODE", "message": "see the worker"}' || true
    done
}

running=$(mktemp)
trap 'rm -f "$running"' TERM INT EXIT
serve &
# Nothing but `wait` surely hears of a signal that comes while something else goes on.
while kill -0 $! 2>/dev/null; do wait $! || true; done
