# Shared by the shell scripts: messages, the cache directory, root rights, the apt mirror.
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh

# say MESSAGE...: one line for the person at the terminal (stdout may be data).
say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die MESSAGE...: the same, and exit 1.
die() {
	say "$@"
	exit 1
}

# cache_dir: print where downloads are kept between runs.
cache_dir() {
	if [ -n "${MOLT_CACHE:-}" ]; then
		printf '%s\n' "$MOLT_CACHE"
	else
		printf '%s\n' "${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/molt"
	fi
}

# as_root COMMAND...: run COMMAND as root, through sudo if need be.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		die "needs root for '$1': run as root, or install sudo"
	fi
}

# apt COMMAND...: apt-get as root, never asking a question; its output is shown if it fails.
apt() {
	if ! apt_output=$(as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -o Dpkg::Use-Pty=0 "$@" 2>&1); then
		printf '%s\n' "$apt_output" >&2
		return 1
	fi
}

# apt_refresh: bring the package lists up to date, once per run of a script.
apt_refresh() {
	[ -z "${apt_refreshed:-}" ] || return 0
	apt update || die "apt-get update failed: check the network and the apt sources"
	apt_refreshed=1
}

# apt_download DIR PACKAGE...: fetch package files into DIR without installing them.
apt_download() {
	apt_download_dir=$1
	shift
	(cd "$apt_download_dir" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$@")
}

# apt_mirror: print the URI that this machine's own apt fetches Debian's main archive from.
apt_mirror() {
	# shellcheck disable=SC2016 # the format is apt's
	apt-get indextargets --format '$(CREATED_BY) $(ORIGIN)|$(REPO_URI)|$(COMPONENT)' 2>/dev/null |
		sed -n 's/^Packages Debian|\(.*\)|main$/\1/p' | grep -v -- '-security' | head -n 1
}
