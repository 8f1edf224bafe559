#!/usr/bin/env bash
# Makes the base images of the Dockerfile from Debian's packages and the Rust toolchain of this machine, under the names
# that the Dockerfile has. For machines that no image registry answers; where one does, `docker build` pulls them.
#
# Root, Debian's mmdebstrap (installed where it is missing), and rustup with the toolchain that `rustc` is.
set -euo pipefail
cd "$(dirname "$0")/.."

# The names stand in the Dockerfile alone: `FROM name AS stage`.
base_of() { sed -n "s/^FROM \([^ ]*\) AS $1\$/\1/p" Dockerfile; }
build=$(base_of build)
[ -n "$build" ] || { echo "base-images.sh: the Dockerfile names no base of a stage called build" >&2; exit 1; }

if docker image inspect "$build" >/dev/null 2>&1; then
    echo "$build is there"
    exit
fi

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
command -v mmdebstrap >/dev/null || {
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap
}

release=${build##*-} # rust:1.95-bookworm
toolchain=$(rustc --print sysroot)
echo "making $build: Debian $release, $(rustc --version)"

# As the image of that name: the toolchain in /usr/local, a C compiler, make, git, and the certificates of
# this machine, with which it reaches the registry of crates.
"${as_root[@]}" mmdebstrap --quiet --variant=minbase --include=ca-certificates,gcc,git,libc6-dev,make \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="mkdir -p \"\$1/usr/local/rust\"" \
    --customize-hook="tar -C '$toolchain' --exclude=share -c . | tar -C \"\$1/usr/local/rust\" -x" \
    --customize-hook="copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs" \
    "$release" - |
    docker import --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --message "made by deploy/base-images.sh" - "$build"
