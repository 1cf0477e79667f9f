#!/usr/bin/env bash
# A study on a Cloud TPU slice: makes the slice or takes the one that is there, installs this checkout on all workers,
# runs the same command on all, shows worker 0's output, fetches the results, and goes on after a preemption.
#
#   launch/tpu_pod.sh --name=N --zone=Z --type=v5litepod-16 --version=v2-alpha-tpuv5-lite [OPTIONS] --
#       --config=configs/paper.py --workdir=/mnt/jxstilts/paper --config.data_dir=/mnt/jxstilts/data
#
# OPTIONS
#   --project=P      default: gcloud's own
#   --spot           capacity that may be taken away at any time
#   --nfs=HOST:/DIR  a share that is mounted on all workers as /mnt/jxstilts. A slice of several hosts needs it: they
#                    share the work folder. What lies elsewhere on a slice is lost with it.
#   --fetch=DIR      copies results, predictions and the report there at the end; default: results/NAME
#   --attempts=N     how often the run is begun, after preemptions and where it ended with code 75; default: 10
#   --delete         deletes the slice in the end, whatever happened
#   --dry-run        prints the commands
# Exit codes are those of `jxstilts run`; 1 where the slice could not be had.
set -euo pipefail

poll="${JXSTILTS_POLL:-30}" # seconds between two looks
name="" zone="" type="" version="" project="" spot="" nfs="" fetch="" attempts=10 delete="" dry_run=""

fail() {
  echo "tpu_pod.sh: $1" >&2
  exit "${2:-2}"
}

while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --zone=*) zone="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --spot) spot=1 ;;
    --nfs=*) nfs="${1#*=}" ;;
    --fetch=*) fetch="${1#*=}" ;;
    --attempts=*) attempts="${1#*=}" ;;
    --delete) delete=1 ;;
    --dry-run) dry_run=1 ;;
    --)
      shift
      break
      ;;
    *) fail "unknown option $1; the options of \`jxstilts run\` come after --" ;;
  esac
  shift
done
for needed in name zone type version; do
  if [ -z "${!needed}" ]; then fail "--$needed=... is needed"; fi
done
[[ "$attempts" =~ ^[1-9][0-9]*$ ]] || fail "--attempts=$attempts: a number, 1 or more"
workdir=""
for option in "$@"; do
  case "$option" in --workdir=*) workdir="${option#*=}" ;; esac
done
[[ "$workdir" = /* ]] || fail "give --workdir=/..., an absolute path on the workers, after --"
fetch="${fetch:-results/$name}"

where=("--zone=$zone")
if [ -n "$project" ]; then where+=("--project=$project"); fi

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on() { # on WORKER COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

# The state of the slice's queued resource, such as ACTIVE; empty where there is none.
state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>/dev/null || true
}

remove() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

have_slice() {
  local now=""
  if [ -z "$dry_run" ]; then now=$(state); fi
  case "$now" in
    FAILED | SUSPENDING | SUSPENDED)
      echo "tpu_pod.sh: the slice $name is $now; making it anew" >&2
      remove
      now=""
      ;;
  esac
  if [ -z "$now" ]; then
    local create=(
      gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name"
      --accelerator-type="$type" --runtime-version="$version"
    )
    if [ -n "$spot" ]; then create+=(--spot); fi
    run "${create[@]}"
  fi
  if [ -n "$dry_run" ]; then return; fi
  while now=$(state) && [ "$now" != ACTIVE ]; do
    case "$now" in FAILED | SUSPENDING | SUSPENDED) fail "the slice $name is $now" 1 ;; esac
    echo "tpu_pod.sh: waiting for the slice $name (${now:-not known yet})" >&2
    sleep "$poll"
  done
}

install() {
  local archive
  archive=$(mktemp -d)/jxstilts.tar.gz
  run git -C "$(dirname "${BASH_SOURCE[0]}")/.." archive --format=tar.gz --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$name:jxstilts.tar.gz" "${where[@]}" --worker=all
  rm -rf "$(dirname "$archive")"
  if [ -n "$nfs" ]; then
    on all "sudo mkdir -p /mnt/jxstilts && { mountpoint -q /mnt/jxstilts || sudo mount -t nfs $(printf %q "$nfs") /mnt/jxstilts; }"
  fi
  on all "mkdir -p jxstilts && tar -xzf jxstilts.tar.gz -C jxstilts && cd jxstilts && python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[tpu]'"
}

# The command runs on by itself on the workers, so that a connection that breaks does not end it.
begin() {
  local line
  line=$(printf '%q ' .venv/bin/jxstilts run --processes=tpu "$@")
  on all "cd jxstilts && rm -f run.code && { nohup setsid bash -c $(printf %q ". launch/env.sh tpu; $line; echo \$? > run.code") > run.log 2>&1 < /dev/null & }"
}

follow() {
  on 0 'cd jxstilts && touch run.log && { tail -n +1 -f run.log & } && while [ ! -e run.code ]; do sleep 2; done; sleep 1; kill $!'
}

# How the run ended on worker 0; empty where the slice is gone, or the run was still going when the connection broke.
ended() {
  if [ -n "$dry_run" ]; then
    on 0 "cat jxstilts/run.code" >&2
    echo 0
  else
    on 0 "cat jxstilts/run.code" 2>/dev/null | tr -d '[:space:]' || true
  fi
}

get_results() {
  local place
  place=$(printf %q "$workdir")
  run mkdir -p "$fetch"
  on 0 "tar -C $place -czf results.tar.gz --exclude=./phases --exclude=./cache --exclude=./leases --exclude=./tokenizer ."
  run gcloud compute tpus tpu-vm scp "$name:results.tar.gz" "$fetch/results.tar.gz" "${where[@]}" --worker=0
  run tar -C "$fetch" -xzf "$fetch/results.tar.gz"
}

if [ -n "$delete" ]; then trap remove EXIT; fi
code=75
for attempt in $(seq "$attempts"); do
  have_slice
  install
  begin "$@"
  code=""
  while [ -z "$code" ]; do
    follow || true
    code=$(ended)
    if [ -z "$code" ]; then # a broken connection, or the slice was taken away
      if [ "$(state)" != ACTIVE ]; then
        echo "tpu_pod.sh: the slice is gone (attempt $attempt of $attempts)" >&2
        code=75
      fi
      sleep "$poll"
    fi
  done
  if [ "$code" -ne 75 ]; then break; fi
done
if [ "$code" -eq 0 ]; then get_results; fi
exit "$code"
