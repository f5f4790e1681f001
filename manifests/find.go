package manifests

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/quote"
)

// minPrefix is how many hexadecimal digits name an image, if they fit only one.
const minPrefix = 6

// FindRoots returns the roots that image names, in order. An empty image names
// all of them. Otherwise it is, and what comes first here goes first:
//
//	nginx:1.27, docker.io/library/nginx:1.27   a name, normalised as by ParseName
//	nginx@sha256:…, nginx:1.27@sha256:…        the same, and the digest it has
//	api:v1, stable                             the exact label in a layout
//	1.27                                       a tag alone
//	sha256:4bd2…, 4bd21c                       a digest, or 6 and more digits that begin it
//
// Several roots come back where several bear the name. Nothing found is a
// *NotFoundError that lists what there is; digits that begin several digests
// are an *InputError. In names the place searched, for the message.
func FindRoots(roots []Root, image, in string) ([]Root, error) {
	if image == "" {
		return roots, nil
	}
	for _, bears := range []func(Root) bool{
		named(image),
		func(r Root) bool { return r.Label == image },
		func(r Root) bool { return r.Name.Tag == image },
	} {
		if found := filter(roots, bears); len(found) > 0 {
			return found, nil
		}
	}
	found, err := byDigest(roots, image)
	if err != nil || len(found) > 0 {
		return found, err
	}
	e := &NotFoundError{Subject: "image " + quote.Text(image), In: in}
	for _, r := range roots {
		e.Have = append(e.Have, r.Display())
	}
	return nil, e
}

// named reports whether a root bears a name: the same repository, and the same
// tag and digest as far as the name has them.
func named(image string) func(Root) bool {
	n, err := ParseName(image, "")
	return func(r Root) bool {
		return err == nil && r.Name.Repository() == n.Repository() &&
			(n.Tag == "" || n.Tag == r.Name.Tag) &&
			(n.Digest == "" || n.Digest == r.Name.Digest || n.Digest == r.Descriptor.Digest)
	}
}

func byDigest(roots []Root, image string) ([]Root, error) {
	hex := strings.TrimPrefix(image, "sha256:")
	if CheckDigest(digest.Digest(image)) != nil && (len(hex) < minPrefix || !isHex(hex)) {
		return nil, nil
	}
	found := filter(roots, func(r Root) bool {
		d := string(r.Descriptor.Digest)
		return strings.HasPrefix(d, image) || strings.HasPrefix(d, "sha256:"+image)
	})
	for _, r := range found {
		if a, b := found[0].Descriptor.Digest, r.Descriptor.Digest; a != b {
			return nil, &InputError{What: "digest prefix", Input: image, Why: fmt.Sprintf("it fits both %s and %s", a, b)}
		}
	}
	return found, nil
}

func filter(roots []Root, keep func(Root) bool) []Root {
	var kept []Root
	for _, r := range roots {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// maxSuggest bounds the words that Suggest compares, in bytes: names and tags
// are shorter.
const maxSuggest = 400

// Suggest returns the one of have that word was most likely meant to be, or ""
// where none is near: at most one letter in three, but no more than three, is
// missing, too many, wrong or swapped with its neighbour, in any case; or word
// is all of it up to a ':', '/' or '@'. Of equals the first wins.
func Suggest(word string, have []string) string {
	if len(word) > maxSuggest {
		return ""
	}
	best, nearest := "", min(3, len(word)/3)+1
	word = strings.ToLower(word)
	for _, h := range have {
		if len(h) > maxSuggest {
			continue
		}
		if d := distance(word, strings.ToLower(h), nearest); d < nearest {
			best, nearest = h, d
		}
	}
	for _, h := range have {
		rest, ok := strings.CutPrefix(strings.ToLower(h), word)
		if best == "" && ok && word != "" && strings.ContainsAny(rest[:min(1, len(rest))], ":/@") {
			return h
		}
	}
	return best
}

// distance is how many letters must be put in, taken out, replaced or swapped
// with their neighbour to make a of b, or limit where it is no less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(limit, last[len(b)])
}
