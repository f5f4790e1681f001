#!/bin/bash
# Build a small corpus of real images, one per kind of producer, and push it to
# a registry on loopback: layers compressed by dockerd, buildah (gzip and
# zstd), crane and umoci over Debian's real packages.
#
#   corpus.sh REGISTRY WORKDIR DOCKER_HOST
#
# Needs root and integration/install-peers.sh. About three minutes. Prints one
# image reference a line on standard output; all else goes to standard error.
set -euo pipefail
registry=$1 work=$2
export DOCKER_HOST=$3 DOCKER_BUILDKIT=0 BUILDAH_ISOLATION=chroot SOURCE_DATE_EPOCH=1752600000
exec 3>&1 1>&2
mkdir -p "$work"
cd "$work"
export PATH=$PATH:$(go env GOPATH)/bin TMPDIR=$work

# Tools that keep state keep it here.
printf '[storage]\ndriver="overlay"\ngraphroot="%s/storage"\nrunroot="%s/storage-run"\n' "$work" "$work" >storage.conf
printf '{"default":[{"type":"insecureAcceptAnything"}]}\n' >policy.json
printf '[[registry]]\nlocation="%s"\ninsecure=true\n' "$registry" >registries.conf
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_REGISTRIES_CONF=$work/registries.conf
policy=(--signature-policy "$work/policy.json")

# The Debian mirror this host already uses.
mirror=$(sed -n 's#^\(deb \(\[[^]]*\] \)\?\|URIs: *\)\(http[^ ]*\).*#\3#p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep '/debian' | grep -v security | head -n 1 || true)
: "${mirror:?no Debian mirror in /etc/apt}"

base() { # NAME PACKAGES
	mmdebstrap --quiet --mode=root --variant=minbase ${2:+--include=$2} --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1"/usr/sbin/policy-rc.d; chmod 755 "$1"/usr/sbin/policy-rc.d; rm -f "$1"/etc/resolv.conf' \
		bookworm "$1.tar" "deb $mirror bookworm main"
	crane append --insecure -f "$1.tar" -t "$registry/base:$1"
	crane mutate --insecure --set-platform linux/amd64 --cmd bash -t "$registry/base:$1" "$registry/base:$1"
}
base v1 ""
base v2 ca-certificates
apt='apt-get update -qq && apt-get install -y -qq --no-install-recommends'
clean='&& rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb'

echo "dockerd: redis" # gzip of Go's standard library, Docker manifests
docker pull -q "$registry/base:v1"
docker build -q --network host -t "$registry/redis:1" - <<X
FROM $registry/base:v1
RUN $apt redis-server $clean
RUN mkdir /data && chown redis:redis /data
USER redis
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["/usr/bin/redis-server"]
CMD ["--save", ""]
X
docker push -q "$registry/redis:1"

echo "buildah: api" # pgzip, OCI manifests; two versions on two bases
for v in 1 2; do
	printf 'VERSION = "%s"\n' $v >version.py
	buildah bud -q "${policy[@]}" --network host --tls-verify=false -t "localhost/api:v$v" -f - . <<X
FROM $registry/base:v$v
RUN $apt python3-minimal $clean
COPY version.py /srv/api/version.py
RUN ln -s version.py /srv/api/current.py && mkdir -m 1777 /srv/spool && touch /srv/old && rm -rf /usr/share/doc/*
USER 1000
CMD ["python3", "/srv/api/version.py"]
X
	buildah push -q "${policy[@]}" --tls-verify=false "localhost/api:v$v" "docker://$registry/api:v$v"
done

echo "buildah: zstd layers"
# By way of a layout: to a registry it would send the gzip layers it knows there.
buildah push -q "${policy[@]}" --format oci --compression-format zstd --compression-level 3 localhost/api:v2 oci:zstd:1
skopeo --policy policy.json copy -q --preserve-digests --dest-tls-verify=false oci:zstd:1 "docker://$registry/apizstd:v2"
rm -rf zstd

echo "crane: a static program alone" # gzip of the fastest level
mkdir -p tool/bin && cp "$(command -v crane)" tool/bin/tool
tar --sort=name --owner=0 --group=0 --mtime=@0 -cf tool.tar -C tool bin
crane append --insecure -f tool.tar -t "$registry/tool:1"
crane mutate --insecure --set-platform linux/amd64 --entrypoint /bin/tool -t "$registry/tool:1" "$registry/tool:1"

echo "umoci: repacked rootfs" # pgzip with umoci's block size
skopeo --policy policy.json copy -q --src-tls-verify=false "docker://$registry/api:v1" oci:umoci:1
umoci unpack --image umoci:1 umoci-rootfs >/dev/null
mkdir -p umoci-rootfs/rootfs/opt/site && cp -r /usr/share/doc/git umoci-rootfs/rootfs/opt/site/ 2>/dev/null || date >umoci-rootfs/rootfs/opt/site/page
rm -rf umoci-rootfs/rootfs/srv/spool
umoci repack --image umoci:1 umoci-rootfs >/dev/null
skopeo --policy policy.json copy -q --preserve-digests --dest-tls-verify=false oci:umoci:1 "docker://$registry/site:1"
rm -rf umoci umoci-rootfs

printf "$registry/%s\n" base:v1 base:v2 redis:1 api:v1 api:v2 apizstd:v2 tool:1 site:1 >&3
