#!/bin/sh
# Run every fuzz target of the tree for the given time each.
set -eu
time=${1:-20s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# go test sometimes calls the end of the time a failure; one that was found
# comes with its input.
failed() {
	if grep -q 'Failing input written' "$log" || ! grep -q 'context deadline exceeded' "$log"; then
		cat "$log"
		exit 1
	fi
}
for dir in $(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go | sort -u); do
		echo "fuzz $dir $target $time"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x >"$log" 2>&1 || failed
		grep 'fuzz: elapsed' "$log" | tail -n 1
	done
done
