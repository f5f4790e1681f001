#!/bin/sh
# Install the peers that the integration tests drive, from Debian and by Go
# module. Needs root; starts no services. Idempotent.
set -eu
export DEBIAN_FRONTEND=noninteractive
packages='skopeo podman buildah umoci crun runc containerd docker.io docker-registry
  mmdebstrap zstd pigz jq uidmap dbus-daemon iproute2 golang-github-containers-common ca-certificates openssl
  gcc libc6-dev make git casync borgbackup restic
  gzip perl python3 libarchive-tools p7zip-full libdeflate-tools zopfli isal xfsprogs btrfs-progs'
command -v java >/dev/null || packages="$packages default-jdk-headless"
missing=
for p in $packages; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
	policy=/usr/sbin/policy-rc.d
	[ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT; }
	apt-get update -qq
	# shellcheck disable=SC2086
	apt-get install -y -qq --no-install-recommends $missing
fi
command -v crane >/dev/null || [ -x "$(go env GOPATH)/bin/crane" ] ||
	CGO_ENABLED=0 go install github.com/google/go-containerregistry/cmd/crane@v0.22.1
