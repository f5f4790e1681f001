#!/bin/sh
# Two builds from two directories must give the same bytes.
set -eu
root=$(git rev-parse --show-toplevel)
work=$(mktemp -d "$root/.reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/one" "$work/two"
for d in one two; do
	(cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$work/$d")
	(cd "$work/$d" && make -s build VERSION=reproducible COMMIT=none OUT=imgpack)
done
a=$(sha256sum <"$work/one/imgpack") b=$(sha256sum <"$work/two/imgpack")
[ "$a" = "$b" ] || { echo "two builds differ: $a, $b"; exit 1; }
echo "reproducible: ${a%% *}"
