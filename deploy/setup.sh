#!/bin/sh
# Make .venv from uv.lock: sh deploy/setup.sh [arguments of `uv sync`].
# Needs python3 (3.9 or later) and a package index; gets uv into .uv/ when it is not on PATH, and a Python >= 3.13 by uv
# when the machine has none. UV_PYTHON, a path or a version, names another. Says in one line what is missing, and does nothing a second time.
set -eu
CDPATH='' cd "$(dirname "$0")/.."

fail() {
	echo "$1" >&2
	exit 1
}

find_uv() {
	if command -v uv >/dev/null 2>&1; then
		echo uv
	elif [ -x .uv/bin/uv ]; then
		echo .uv/bin/uv
	fi
}

[ -w . ] || fail "$(pwd -P) cannot be written to, and what is made goes into .venv"

# What is made here is .venv, whatever the shell says of another project's or another Python's; and a home that is missing or may not be
# written to has no room for what is downloaded.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONINSPECT UV_PROJECT UV_WORKING_DIR UV_WORKING_DIRECTORY
export UV_PROJECT_ENVIRONMENT=.venv
export HOME="${HOME:-$PWD/.uv}"
cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
if ! mkdir -p "$cache" 2>/dev/null || ! [ -w "$cache" ]; then
	export UV_CACHE_DIR="$PWD/.uv/cache" UV_PYTHON_INSTALL_DIR="$PWD/.uv/python"
fi

# One at a time: of two that make .venv, or .uv, each takes what the other has half made for broken. Its children have the lock as well, and
# keep it where it is killed. Where there is no flock, as on macOS, or no lock, as on some shares, it goes without.
if command -v flock >/dev/null 2>&1; then
	exec 9<deploy/setup.sh
	locked=0
	flock -n 9 2>/dev/null || locked=$?
	if [ "$locked" = 1 ]; then
		echo "another set-up is at work in this folder: waiting until it has ended" >&2
		flock 9
	fi
fi

# Programs in .venv name the place that they were made for: in a folder that was moved they are made anew, from uv's cache.
place=.venv/made-for
if [ -f "$place" ] && [ "$(cat "$place")" != "$(pwd -P)" ]; then
	for part in .venv/* .venv/.[!.]*; do # what says so last: a removal that is interrupted is gone on with
		# Of a link only the link goes, below: the folder that this one was copied from may have what it leads to.
		[ -L .venv ] || [ "$part" = "$place" ] || rm -rf "$part"
	done
	rm -rf .venv
fi

# A Python that runs and is new enough; version managers put stand-ins on PATH that do not run.
find_python() {
	for candidate in .venv/bin/python python3 python3.13 python3.14 python3.15 \
		"${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[3-9]*/bin/python; do
		if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 13))' >/dev/null 2>&1; then
			command -v "$candidate"
			return
		fi
	done
}

uv=$(find_uv)
if [ -z "$uv" ]; then
	command -v python3 >/dev/null 2>&1 || fail "python3 is missing: install Python 3.9 or later, or uv"
	version=$(python3 --version 2>/dev/null) || fail "python3 does not run: install Python 3.9 or later, or uv"
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
		fail "python3 is $version: install Python 3.9 or later, or uv"
	echo "getting uv into .uv/" >&2
	# Of a uv that was half written, as on a full disk, pip says that it is installed. What was downloaded into .uv stays.
	rm -rf .uv/bin .uv/lib .uv/lib64
	python3 -m venv .uv >/dev/null 2>&1 || fail "python3 -m venv failed: install the venv module (Debian: apt install python3-venv), or uv"
	# Into .uv, wherever pip is told to put what others install.
	unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON
	.uv/bin/python -m pip install --no-user --quiet --disable-pip-version-check uv || fail "uv could not be installed: is a package index within reach?"
	uv=.uv/bin/uv
	[ -x "$uv" ] || fail "pip has put uv elsewhere than into .uv: \`.uv/bin/python -m pip config list\` shows what tells it to, such as a target"
fi

python=${UV_PYTHON:-$(find_python)}
if [ -n "$python" ]; then
	export UV_PYTHON="$python"
else
	echo "no Python >= 3.13 here: asking uv to download one" >&2
	"$uv" python install --quiet 2>/dev/null || fail "Python >= 3.13 is missing and could not be downloaded: install it, or set UV_PYTHON to one"
fi
# uv.lock counts, and not what a user wants of what he resolves himself, as no package of the last week: uv takes a lock
# file that was made without for out of date. What is in a file of his, from 0.12 on it can be told to leave.
if ! grep -q '^\[options\]' uv.lock 2>/dev/null; then
	unset UV_EXCLUDE_NEWER UV_RESOLUTION UV_PRERELEASE UV_FORK_STRATEGY
	case $("$uv" --version 2>/dev/null) in
	"uv 0."[0-9].* | "uv 0.10."* | "uv 0.11."*) ;;
	*) export UV_EXCLUDE_NEWER=false ;;
	esac
fi
# Bytecode is compiled once here, of the service too, rather than by whoever starts first, or at each start where
# PYTHONDONTWRITEBYTECODE is set. Inexact: what another target has installed stays, for that one may be running.
"$uv" sync --quiet --locked --inexact --compile-bytecode "$@" || {
	code=$?
	[ "$uv" = uv ] || echo "uv is $uv here" >&2 # its advice, as to run `uv lock`, takes it to be on PATH
	exit "$code"
}
pwd -P >"$place"
exec .venv/bin/python -m compileall -q service migrations
