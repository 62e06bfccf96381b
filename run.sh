#!/usr/bin/env bash
# The door: `./run.sh help`. Needs bash and Python 3.11 or newer, and makes everything else by itself.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # `sh run.sh` is another shell, which understands this line only
set -euo pipefail

# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH
SELF="${BASH_SOURCE[0]}"
while [[ -L "$SELF" ]]; do
    LINK="$(readlink -- "$SELF")"
    [[ "$LINK" == /* ]] || LINK="$(dirname -- "$SELF")/$LINK"
    SELF="$LINK"
done
ROOT="$(cd -- "$(dirname -- "$SELF")" && pwd -P)"
VENV="${HISTOFOLD_VENV:-$ROOT/.venv}"
[[ "$VENV" == /* ]] || VENV="$PWD/$VENV" # `test` changes the folder
export NO_ALBUMENTATIONS_UPDATE=1

help() {
    cat <<'TEXT'
histofold: from histology slides and images to a submission that Kaggle accepts

  ./run.sh VERB [key=value …]        from any folder; all that follows the verb is passed on

  setup       make .venv from requirements.txt (every other verb does it by itself when it is missing or old)
  demo        the whole way on the embedded sample, in a few minutes
  download    fetch a competition's files from Kaggle:     ./run.sh download competition=dsb2018
  prepare     raw files → folds and store:                 ./run.sh prepare competition=dsb2018
  train       one fold, or with -m several:                ./run.sh train competition=dsb2018 model=unet -m fold=0,1,2,3,4
  evaluate    the leaderboard, or an ensemble's CV:        ./run.sh evaluate competition=dsb2018 'runs=[unet]'
  predict     the test set, or your own images:            ./run.sh predict competition=dsb2018 name=unet images=FOLDER
  submit      submission.csv, validated; sent on request:  ./run.sh submit competition=dsb2018 name=unet submit.send=true
  kernel      a notebook that submits without internet:    ./run.sh kernel competition=hubmap_kidney name=unet
  report      one HTML page:                               ./run.sh report competition=dsb2018 name=unet
  validate    check any submission CSV:                    ./run.sh validate competition=dsb2018 file=submission.csv
  bench NAME  one of tests/bench/, for example             ./run.sh bench rle
  test        ruff, mypy and the tests; --all adds the slow ones, and installs Ray for them; the rest goes to pytest
  help        this text; ./run.sh VERB --help says more about a verb

Settings, defaults and choices: configs/config.yaml and the folders beside it.
PYTHON=/path/to/python ./run.sh … uses that interpreter as it is (Kaggle, conda) and makes no .venv.
TEXT
}

say() { printf 'run.sh: %s\n' "$*" >&2; }

# A Python 3.11 or newer to make the environment from.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer was not found; install it, or say where it is: PYTHON=/path/to/python ./run.sh …"
    return 1
}

# What the environment was made from: the interpreter's version and the contents of the requirement files.
stamp_of() {
    { "$PY" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || true; cat -- "$@"; } | cksum
}

# Whether $PY can be installed into. After an upgrade of the system it may be another Python, whose packages are gone;
# without Debian's python3-venv, or broken off, its environment was left without pip.
usable() {
    [[ -x "$PY" ]] && "$PY" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 &&
        "$PY" -m pip --version >/dev/null 2>&1
}

# pip finds out that a disk is full only after minutes of downloading.
warn_of_little_space() {
    local free
    [[ ! -d "$VENV/lib" || -z "$(find "$VENV/lib" -maxdepth 4 -name torch -print -quit)" ]] || return 0
    free="$(df -Pk "$VENV" 2>/dev/null | awk 'NR == 2 {print int($4 / 1048576)}')"
    [[ -z "$free" || "$free" -ge 8 ]] ||
        say "only $free GB are free there: should pip run out of space, make some, or set HISTOFOLD_VENV to a folder on another disk"
}

# Whether $VENV may be emptied: it is not there, holds nothing, or is an environment that this script made or began.
# HISTOFOLD_VENV may by mistake name a folder of somebody's data.
ours() {
    [[ -e "$VENV" || -L "$VENV" ]] || return 0
    [[ -d "$VENV" ]] || return 1
    [[ ! -e "$VENV/.stamp-begun" ]] || return 0
    [[ ! -e "$VENV/pyvenv.cfg" || -z "$(find "$VENV/" -maxdepth 1 -name '.stamp-*')" ]] || return 0
    if [[ -z "${HISTOFOLD_VENV:-}" ]]; then # our own place: what has nothing but an environment's folders is one
        [[ -z "$(find "$VENV/" -mindepth 1 -maxdepth 1 ! -name bin ! -name lib ! -name lib64 ! -name include ! -name share ! -name etc \
            ! -name pyvenv.cfg ! -name .gitignore ! -name '.stamp-*')" ]]
    else
        [[ -z "$(ls -A -- "$VENV")" ]]
    fi
}

# Make $VENV anew. What was begun is marked first, so that the next call mends what a broken off one has left.
make_environment() {
    local base new=""
    ours || {
        say "$VENV holds something that is no environment of histofold's, and was left as it is; name a new folder:" \
            "HISTOFOLD_VENV=$(printf %q "${VENV%/}/histofold-venv")"
        return 1
    }
    base="$(find_python)" || return 1
    say "making $VENV with $base"
    [[ -d "$VENV" ]] || new=yes
    mkdir -p -- "$VENV" && : >"$VENV/.stamp-begun" || return 1
    find "$VENV/" -mindepth 1 -maxdepth 1 ! -name .stamp-begun -exec rm -rf -- {} + || return 1
    "$base" -m venv "$VENV" || {
        # All that is there now, this call has made.
        find "$VENV/" -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +
        [[ -z "$new" ]] || rmdir -- "$VENV"
        say "$base -m venv failed; Debian and Ubuntu need the package python3-venv"
        return 1
    }
}

# Make or refresh $VENV from the requirement file $1 and those that it builds on; leaves $PY set.
environment() {
    if [[ -n "${PYTHON:-}" ]]; then
        PY="$(command -v -- "$PYTHON")" || { say "PYTHON=$PYTHON: no such interpreter"; return 1; }
        [[ "$PY" == /* ]] || PY="$PWD/$PY"
        return
    fi
    local wanted="$1" stamp="$VENV/.stamp-$1" files=("$ROOT/requirements.txt")
    [[ "$wanted" == requirements.txt ]] || files+=("$ROOT/$wanted")
    PY="$VENV/bin/python"
    if [[ -x "$PY" && -f "$stamp" && "$(cat "$stamp")" == "$(stamp_of "${files[@]}")" ]]; then
        return
    fi
    if ! usable; then
        make_environment || return 1
    fi
    say "installing $wanted into $VENV (5.5 to 7 GB and a few minutes the first time)"
    warn_of_little_space
    "$PY" -m pip install --disable-pip-version-check --quiet --progress-bar on -r "$ROOT/$wanted" ||
        { say "pip failed; what it says above is the reason, and the same command tries again"; return 1; }
    # Written last: an installation that was broken off is made again. What requirements-dev.txt
    # installs holds requirements.txt, too.
    stamp_of "$ROOT/requirements.txt" >"$VENV/.stamp-requirements.txt"
    stamp_of "${files[@]}" >"$stamp"
    rm -f -- "$VENV/.stamp-begun"
}

setup() {
    local wanted="${1:-requirements.txt}"
    case "$wanted" in help | -h | --help) help && return ;; esac
    if [[ "$wanted" != requirements*.txt || ! -f "$ROOT/$wanted" ]]; then
        say "setup $wanted: no such file of requirements; there are:" "$(cd "$ROOT" && echo requirements*.txt)"
        return 2
    fi
    environment "$wanted" && say "ready: $PY"
}

# A script of src/ or a module of the package, without changing the folder: relative paths are the caller's.
verb() {
    local name="$1"
    shift
    environment requirements.txt
    if [[ -f "$ROOT/src/$name.py" ]]; then
        exec "$PY" "$ROOT/src/$name.py" "$@"
    fi
    PYTHONPATH="$ROOT/src${PYTHONPATH:+:$PYTHONPATH}" exec "$PY" -m histofold "$name" "$@"
}

run_tests() {
    environment requirements-dev.txt
    # The slow tests go through the launchers, too.
    [[ " $* " != *" --all "* ]] || environment requirements-cluster.txt
    cd "$ROOT"
    local code=0
    "$PY" -m ruff check src tests || code=1
    "$PY" -m mypy || code=1
    "$PY" -m pytest "$@" || code=$?
    exit "$code"
}

bench() {
    local name="${1:-}" known
    known="$(cd "$ROOT/tests/bench" && ls bench_*.py 2>/dev/null | sed 's/^bench_//; s/\.py$//' | tr '\n' ' ')"
    if [[ -z "$name" || ! -f "$ROOT/tests/bench/bench_$name.py" ]]; then
        say "bench${name:+ $name}: choose one of: $known"
        return 2
    fi
    shift
    environment requirements-dev.txt
    PYTHONPATH="$ROOT/src${PYTHONPATH:+:$PYTHONPATH}" exec "$PY" "$ROOT/tests/bench/bench_$name.py" "$@"
}

main() {
    local name="${1:-help}"
    [[ $# -eq 0 ]] || shift
    case "$name" in
        help | -h | --help) help ;;
        setup) setup "$@" ;;
        demo | download | prepare | train | evaluate | predict | submit | kernel | report | validate) verb "$name" "$@" ;;
        bench) bench "$@" ;;
        test) run_tests "$@" ;;
        *)
            say "$name: unknown verb; there are: setup demo download prepare train evaluate predict submit kernel report validate bench test help"
            return 2
            ;;
    esac
}

main "$@"
