#!/usr/bin/env bash
# The experiment registry for shell scripts (bash 4 or later):
#
#   source scripts/registry_functions.sh
#   run_experiment NAME [--gpu N] [--result-file F] -- COMMAND …   # runs it, unless it need not run or somebody else has it
#   push_results                                                   # commits runs/ and pushes; checked-out code stays as it is
#
# run_experiment returns 0 (completed, or nothing to do), 3 (its result cannot be believed), 75 (stopped early, can go on), or the
# command's own exit code. The output goes to runs/logs/. SIGTERM, SIGUSR2 and SIGINT are passed on, and the attempt is recorded
# as preempted. Settings: LATENTWIRE_RUNS (folder of the registry), LATENTWIRE_PYTHON (3.9 or later), LATENTWIRE_LEASE_S.

LATENTWIRE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${LATENTWIRE_RUNS:=$LATENTWIRE_ROOT/runs}"
: "${LATENTWIRE_PYTHON:=python3}"
: "${LATENTWIRE_LEASE_S:=300}"

registry() {
  "$LATENTWIRE_PYTHON" "$LATENTWIRE_ROOT/telepathy/experiment_registry.py" --registry "$LATENTWIRE_RUNS" "$@"
}

push_results() {
  registry push-results "$@"
}

run_experiment() {
  local name="" gpu="" result="" asked owner log code=0 shell=$BASHPID
  while (($#)); do
    case $1 in
      --) shift && break ;;
      --gpu) gpu=${2:?--gpu needs a number} && shift 2 ;;
      --result-file) result=${2:?--result-file needs a path} && shift 2 ;;
      -*) _latentwire_usage "unknown option $1" || return ;;
      *) [[ -z $name ]] || _latentwire_usage "two names: $name and $1 (-- stands before the command)" || return
         name=$1 && shift ;;
    esac
  done
  if [[ -z $name ]] || ! (($#)); then
    _latentwire_usage "a name and a command are needed" || return
  fi
  asked=$(registry should_run "$name") || return
  if [[ $asked != 1\|* ]]; then
    echo "$name: not run: ${asked#*|}" >&2
    return 0
  fi
  log="$LATENTWIRE_RUNS/logs/$name.$(date -u +%Y%m%dT%H%M%SZ)-${HOSTNAME%%.*}-$shell.log"
  mkdir -p "$LATENTWIRE_RUNS/logs" || return
  owner=$(registry start "$name" --lease-s "$LATENTWIRE_LEASE_S" --pid "$shell" --log "$log" ${gpu:+--gpu "$gpu"}) || code=$?
  if ((code == 3)); then
    echo "$name: not run: somebody else has it" >&2
    return 0
  fi
  ((code == 0)) || return "$code"
  _latentwire_attempt "$name" "$owner" "$log" "$result" "$@"
}

_latentwire_usage() {
  echo "error: run_experiment: $1; type run_experiment NAME -- COMMAND …" >&2
  return 2
}

# Runs a claimed command and records how it ended. The command and the heartbeats get process groups of their own (set -m), so that
# a signal reaches everything the command has started, and nothing is left behind.
_latentwire_attempt() {
  # in a background command, BASHPID would be that command's
  local name=$1 owner=$2 log=$3 result=$4 child beats code=0 traps monitor=+m shell=$BASHPID
  shift 4
  [[ $- == *m* ]] && monitor=-m
  traps=$(trap -p TERM USR2 INT)
  _latentwire_signal=""
  trap '_latentwire_pass_on TERM' TERM
  trap '_latentwire_pass_on USR2' USR2
  trap '_latentwire_pass_on INT' INT
  set -m
  # a command must not inherit the traps of this function, and reads no terminal
  (trap - TERM USR2 INT && exec "$@") </dev/null >>"$log" 2>&1 &
  child=$!
  _latentwire_child=$child
  _latentwire_heartbeats "$name" "$owner" "$child" "$shell" </dev/null >/dev/null 2>&1 &
  beats=$!
  set "$monitor"
  # one that came before there was a child to tell
  [[ -z $_latentwire_signal ]] || _latentwire_pass_on "$_latentwire_signal"
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" 2>/dev/null || true # a signal ends this wait, not the command
  done
  wait "$child" 2>/dev/null || code=$?
  kill -KILL -- "-$beats" 2>/dev/null || true
  wait "$beats" 2>/dev/null || true
  trap - TERM USR2 INT
  eval "$traps"
  _latentwire_record "$name" "$owner" "$log" "$result" "$code"
}

_latentwire_pass_on() {
  _latentwire_signal=$1
  kill "-$1" -- "-${_latentwire_child:-0}" 2>/dev/null || true
}

_latentwire_record() {
  local name=$1 owner=$2 log=$3 result=$4 code=$5
  if ((code == 0 || code == 3)); then
    registry complete "$name" --owner "$owner" --exit-code "$code" ${result:+--result-file "$result"} >&2
  elif ((code == 75)) || [[ -n $_latentwire_signal ]]; then
    registry preempt "$name" --owner "$owner" --exit-code "$code" >&2 || return
    return 75
  else
    echo "$name: exit code $code; the log ends:" >&2
    tail -n 5 "$log" >&2
    registry fail "$name" --owner "$owner" --exit-code "$code" --log "$log" >&2 || return
    return "$code"
  fi
}

# Keeps the lease alive. Where another has taken over, or this shell was killed, the command is ended: it must not run beside its
# successor.
_latentwire_heartbeats() {
  local name=$1 owner=$2 child=$3 shell=$4 last=$SECONDS code pause_s=2
  trap - TERM USR2 INT
  local every_s=$((${LATENTWIRE_LEASE_S%.*} / 5))
  ((every_s >= pause_s)) || pause_s=0.5
  while sleep "$pause_s"; do
    kill -0 "$shell" 2>/dev/null || break
    ((SECONDS - last >= every_s)) || continue
    last=$SECONDS code=0
    registry heartbeat "$name" --owner "$owner" || code=$?
    ((code != 3)) || break
  done
  kill -TERM -- "-$child" 2>/dev/null || true
  for _ in {1..40}; do # it may save what it has
    kill -0 -- "-$child" 2>/dev/null || return 0
    sleep 0.5
  done
  kill -KILL -- "-$child" 2>/dev/null || true
}
