#!/bin/sh
# The main job on a fresh machine: several real images into one bundle, over an
# imagined gap, verified, loaded, unpacked and run. Needs no engine, no
# registry and no root. Usage: demo.sh IMGPACK
#
#   DEMO_IMAGES="nginx redis"   take these from a registry instead of building
#                               images from this machine's own programs
set -eu
imgpack=$(realpath "$1")
work=${DEMO_DIR:-_demo} # an underscore hides the images' files from go
rm -rf "$work"
mkdir -p "$work/connected" "$work/far"
connected=$(realpath "$work/connected") far=$(realpath "$work/far")

now() { date +%s.%N; }
began=$(now)
say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }
# step runs a command, shows it and its output, and says how long it took.
step() {
	printf '$ imgpack %s\n' "$*"
	from=$(now)
	"$imgpack" "$@"
	awk -v a="$from" -v b="$(now)" 'BEGIN { printf "  (%.2f s)\n", b - a }'
}

if [ -n "${DEMO_IMAGES:-}" ]; then
	say "Connected side: images from a registry"
	sources=$DEMO_IMAGES
	first=${DEMO_IMAGES%% *}
else
	say "Connected side: three images of this machine's real programs"
	from=$(now)
	go run ./fixtures/demo "$connected/images"
	awk -v a="$from" -v b="$(now)" 'BEGIN { printf "  (built in %.2f s)\n", b - a }'
	sources=oci:$connected/images
	first=demo/app:1.1
fi

say "Pack them into one bundle: every layer once"
export IMGPACK_STORE="$connected/store"
# shellcheck disable=SC2086 # a list
step pack -o "$connected/site.imgpack" $sources

say "Carry the file across the gap"
mv "$connected/site.imgpack" "$far/site.imgpack"
ls -l "$far/site.imgpack" | awk '{ print "  " $5 " bytes" }'
export IMGPACK_STORE="$far/store"
cd "$far"

say "Far side, without a network: is it what it claims?"
step verify --deep site.imgpack

say "Load it into an empty store, with the exact same digests"
step load -i site.imgpack
step images --digests

say "Unpack one"
step unpack "$first" rootfs
ls rootfs | tr '\n' ' '
echo

say "Run one in the sandbox: no daemon, no engine, no network"
# shellcheck disable=SC2016 # for the sandbox's shell
step run --entrypoint /bin/sh "$first" -c 'echo "hello from process $$, user $(id -u), host $(uname -n)"; ls /' ||
	echo "  $first has no shell to run"

say "Done in $(awk -v a="$began" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }') s. Everything is in $work; remove it when you have looked."
