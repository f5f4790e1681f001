package main

import (
	"slices"
	"sort"
	"strings"
)

// maxSuggestions bounds how many near words are offered.
const maxSuggestions = 3

// suggest returns the words nearest to one that is not among them, nearest
// first.
func suggest(word string, have []string) []string {
	type near struct {
		word     string
		distance int
	}
	var found []near
	for _, h := range have {
		d := distance(strings.ToLower(word), strings.ToLower(h))
		if d <= max(1, len(word)/3) || len(word) > 2 && strings.HasPrefix(h, word) {
			found = append(found, near{h, d})
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].distance < found[j].distance })
	var out []string
	for _, n := range found {
		if !slices.Contains(out, n.word) && len(out) < maxSuggestions {
			out = append(out, n.word)
		}
	}
	return out
}

// maxDistance bounds the length of words compared: longer ones are no typos.
const maxDistance = 200

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	if len(a) > maxDistance || len(b) > maxDistance {
		return maxDistance
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
