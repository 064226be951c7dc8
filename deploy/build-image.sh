#!/bin/sh
# Build the image with docker, podman or buildah, whichever is there: sh deploy/build-image.sh [arguments of the builder].
# IMAGE names it (trireme:VERSION); PYTHON_IMAGE replaces the base, by tag or by digest; EXTRAS=otel adds traces. An index of your own:
# UV_DEFAULT_INDEX is its address, NETRC a file with name and password, SSL_CERT_FILE one with the authority.
set -eu
CDPATH='' cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
unset GIT_DIR GIT_WORK_TREE  # a hook of git's, or a shell, may have those of another repository
if revision=$(git rev-parse HEAD); then
	[ -z "$(git status --porcelain)" ] || revision=$revision-dirty # as `git describe --dirty` says it
else
	revision=unknown # and git has said why
fi
image=${IMAGE:-trireme:$version}

host=${UV_DEFAULT_INDEX-}
host=${host#*://}
case ${host%%/*} in *@*)
	echo "UV_DEFAULT_INDEX: a password in it would stay in the record of the build: put it into a file like ~/.netrc, and name that by NETRC" >&2
	exit 1
	;;
esac

if docker version >/dev/null 2>&1; then
	build="docker build"
elif command -v podman >/dev/null 2>&1; then
	build="podman build"
elif command -v buildah >/dev/null 2>&1; then
	build="buildah build --layers"
else
	echo "building an image needs docker (with its daemon), podman or buildah: none of them is here" >&2
	exit 1
fi

# shellcheck disable=SC2086  # two words on purpose
$build --tag "$image" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
	${EXTRAS:+--build-arg "EXTRAS=$EXTRAS"} ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} \
	${UV_DEFAULT_INDEX:+--build-arg "UV_DEFAULT_INDEX=$UV_DEFAULT_INDEX"} \
	${NETRC:+--secret "id=netrc,src=$NETRC"} ${SSL_CERT_FILE:+--secret "id=ca,src=$SSL_CERT_FILE"} "$@" .
echo "built $image"
