#!/usr/bin/env bash
{directives}
#
# Runs the experiments of a suite until none is left: one worker per GPU, each claims the next experiment.
# Rendered by `latentwire slurm render {config}{cluster_flag}`; render again instead of editing.
#
#   sbatch {script} [CONFIG]
#
# Flags of sbatch and SBATCH_* variables override the lines above. These variables override what is below:
#   LATENTWIRE_WORKDIR   checkout to run in (when it does not exist: the folder of submission)
#   LATENTWIRE_SCRATCH   where caches go      LATENTWIRE_PYTHON   a ready interpreter, instead of .venv
#   LATENTWIRE_PUSH=0    leave results here   LATENTWIRE_LEASE_S  how long a claim lives without a heartbeat
set -euo pipefail

config=${{1:-{config}}}
workdir=${{LATENTWIRE_WORKDIR:-{workdir}}}
scratch=${{LATENTWIRE_SCRATCH:-{scratch}}}

say() {{ echo "$(date '+%F %T') $*"; }}
stop() {{ say "error: $*" >&2; exit 1; }}

# ------------------------------------------------------------------------------------------------------------- the place

[ -d "$workdir" ] || workdir=${{SLURM_SUBMIT_DIR:-$PWD}}
cd "$workdir"
[ -f pyproject.toml ] && [ -d latentwire ] || stop "$PWD is no checkout of LatentWire; submit from one, or set LATENTWIRE_WORKDIR"
[ -f "$config" ] || stop "config $config does not exist in $PWD; give one of: $(echo configs/*.yaml)"
if ! mkdir -p "$scratch" 2>/dev/null; then
  say "scratch $scratch cannot be created here; caches go to $PWD/.cache"
  scratch=$PWD/.cache
fi
export LATENTWIRE_CACHE=${{LATENTWIRE_CACHE:-$scratch/latentwire}} HF_HOME=${{HF_HOME:-$scratch/huggingface}}
export PIP_CACHE_DIR=${{PIP_CACHE_DIR:-$scratch/pip}} TRITON_CACHE_DIR=${{TRITON_CACHE_DIR:-$scratch/triton}}
mkdir -p runs/logs
say "job ${{SLURM_JOB_ID:-none}}, restart ${{SLURM_RESTART_COUNT:-0}}, on $(hostname), in $PWD, commit $(git rev-parse --short HEAD 2>/dev/null || echo none)"

# ------------------------------------------------------------------------------------------------------- the environment

# one job installs, the others wait; the lock vanishes with the process that holds it
environment() {{
  exec 9>.venv.lock
  if ! flock -w 1800 9; then stop "another job has held $PWD/.venv.lock for 30 minutes; see who runs pip here"; fi
  if [ ! -f .venv/.installed ] || [ pyproject.toml -nt .venv/.installed ] || [ constraints.txt -nt .venv/.installed ]; then
    say "setting up .venv"
    bash scripts/setup.sh .venv python3.11 || stop "the environment cannot be set up here; run \`make setup\` on a login node"
    touch .venv/.installed
  fi
  exec 9>&-
}}
python=${{LATENTWIRE_PYTHON:-}}
if [ -z "$python" ]; then
  environment
  python=$PWD/.venv/bin/python
fi
latentwire() {{ "$python" -m latentwire.cli.app "$@"; }}

latentwire experiments plan "$config" --preflight --quiet || stop "not ready (see above); no experiment was touched"

# ------------------------------------------------------------------------------------------------------------ the workers

gpus=()
if [ -n "${{CUDA_VISIBLE_DEVICES:-}}" ]; then
  IFS=, read -r -a gpus <<<"$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi >/dev/null 2>&1; then
  while read -r gpu; do gpus+=("$gpu"); done < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true)
fi

workers=()
restarts=0
stopped_by=""
requeue=""
# shellcheck disable=SC2317  # called by trap
forward() {{
  stopped_by=$1
  # the time limit does not requeue a job by itself, pre-emption does; TERM follows USR2 where the end takes long
  [ "$1" != USR2 ] || requeue=1
  say "SIG$1: workers save and end"
  for worker in ${{workers[@]+"${{workers[@]}}"}}; do kill -TERM "$worker" 2>/dev/null || true; done
}}
# Slurm sends USR2 before the time limit (--signal) and TERM when the job is pre-empted, requeued or cancelled
trap 'forward USR2' USR2
trap 'forward TERM' TERM

start_worker() {{ # INDEX
  local flags=(--no-preflight --lease_s "${{LATENTWIRE_LEASE_S:-300}}")
  [ ${{#gpus[@]}} -eq 0 ] || flags+=(--gpu "${{gpus[$1]}}")
  "$python" -m latentwire.cli.app experiments worker "$config" "${{flags[@]}}" &
  workers[$1]=$!
}}
if [ ${{#gpus[@]}} -eq 0 ]; then
  say "no GPU here: one worker on the CPU"
  start_worker 0
else
  say "one worker on each GPU: ${{gpus[*]}}"
  for index in "${{!gpus[@]}}"; do start_worker "$index"; done
fi
[ -z "$stopped_by" ] || forward "$stopped_by"

code=0
while [ ${{#workers[@]}} -gt 0 ]; do
  # in the background, because a signal is heard at once while the shell waits, but not while a command runs
  sleep 2 &
  wait $! || true
  for index in "${{!workers[@]}}"; do
    if kill -0 "${{workers[$index]}}" 2>/dev/null; then continue; fi
    status=0
    wait "${{workers[$index]}}" || status=$?
    unset "workers[$index]"
    if [ "$status" -gt 128 ] && [ -z "$stopped_by" ] && [ "$restarts" -lt 3 ]; then
      restarts=$((restarts + 1))
      say "a worker was killed (exit code $status); starting it again"
      start_worker "$index"
    elif [ "$status" -gt "$code" ]; then
      code=$status
    fi
  done
done

# --------------------------------------------------------------------------------------------------------------- the end

latentwire experiments status || true
# after TERM only seconds are left; the next start brings these results too
if [ "${{LATENTWIRE_PUSH:-1}}" = 1 ] && [ "$stopped_by" != TERM ]; then
  # only results go out: nothing pulls code into a job
  timeout 90 "$python" telepathy/experiment_registry.py push-results &
  push=$! pushed=0
  wait "$push" || pushed=$?
  # this wait ends when a signal comes, the push does not
  [ "$stopped_by" != TERM ] || kill "$push" 2>/dev/null || true
  [ "$pushed" = 0 ] || say "results were not pushed; run \`latentwire experiments sync\` later"
fi
if [ -n "$stopped_by" ]; then
  say "stopped by SIG$stopped_by; the same job goes on from here"
  if [ -n "$requeue" ] && [ -n "${{SLURM_JOB_ID:-}}" ]; then scontrol requeue "$SLURM_JOB_ID" || true; fi
  exit 75
fi
exit "$code"
