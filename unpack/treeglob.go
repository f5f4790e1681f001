package unpack

import (
	"io"
	"regexp"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// glob is a pattern for paths of a tree; it takes what it matches and all that
// lies below that. A slash at its beginning or end means nothing; * and ?
// match no slash, ** does; [abc] and \ are as in a shell.
type glob struct {
	text string
	re   *regexp.Regexp
}

// CheckGlob returns a *manifests.InputError for a pattern that does not parse.
func CheckGlob(pattern string) error {
	_, err := parseGlob(pattern)
	return err
}

func parseGlobs(patterns []string) ([]glob, error) {
	var all []glob
	for _, p := range patterns {
		g, err := parseGlob(p)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

func parseGlob(pattern string) (glob, error) {
	bad := func(why string) (glob, error) {
		return glob{}, &manifests.InputError{What: "path pattern", Input: pattern, Why: why}
	}
	if pattern == "" {
		return bad("it is empty")
	}
	rest := strings.Trim(pattern, "/")
	if rest == "." || rest == "**" {
		rest = "" // everything
	}
	if rest != "" {
		rest = "/" + rest
	}
	var b strings.Builder
	for rest != "" {
		var part, why string
		if part, rest, why = globPart(rest); why != "" {
			return bad(why)
		}
		b.WriteString(part)
	}
	re, err := regexp.Compile("^(?s:" + b.String() + ")(?s:/.*)?$")
	if err != nil {
		return bad("it cannot be read")
	}
	return glob{pattern, re}, nil
}

// globPart turns the beginning of a pattern into a regular expression.
func globPart(s string) (part, rest, why string) {
	switch {
	case strings.HasPrefix(s, "/**/"):
		return "/(?:.*/)?", s[4:], ""
	case strings.HasPrefix(s, "**"):
		return ".*", strings.TrimLeft(s, "*"), ""
	case s[0] == '*':
		return "[^/]*", s[1:], ""
	case s[0] == '?':
		return "[^/]", s[1:], ""
	case s[0] == '\\':
		if len(s) == 1 {
			return "", "", `it ends in a \`
		}
		return regexp.QuoteMeta(s[1:2]), s[2:], ""
	case s[0] == '[':
		end := strings.IndexByte(s[min(2, len(s)):], ']') + 2
		if end < 2 {
			return "", "", "a [ has no ]"
		}
		set := strings.NewReplacer(`\`, `\\`, "[", `\[`, "&&", "&").Replace(s[1:end])
		if set[0] == '!' || set[0] == '^' {
			return "[^/" + set[1:] + "]", s[end+1:], ""
		}
		return "[" + set + "]", s[end+1:], ""
	}
	n := strings.IndexAny(s[1:], `*?[\/`) + 1
	if n == 0 {
		n = len(s)
	}
	return regexp.QuoteMeta(s[:n]), s[n:], ""
}

// match reports whether the pattern takes a path of a tree.
func (g glob) match(path string) bool { return g.re.MatchString(slashed(path)) }

// slashed is a path of a tree as people write it, but for the top: it is no
// child of itself.
func slashed(path string) string {
	if path == "." {
		return ""
	}
	return "/" + path
}

// resolve lets symlinks of the tree lead the directories that a pattern begins
// with in plain letters: /bin/sh is usr/bin/sh in many images.
func (t *Tree) resolve(g glob) glob {
	parts := strings.Split(strings.Trim(g.text, "/"), "/")
	plain := 0
	for plain < len(parts)-1 && !strings.ContainsAny(parts[plain], `*?[\`) {
		plain++
	}
	if plain == 0 {
		return g
	}
	name := strings.Join(parts[:plain], "/")
	path, missing, err := follow(name, func(path string) (node, error) { return t.root.at(path).is(), nil })
	if err != nil || missing || path == name {
		return g
	}
	escape := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)
	found, err := parseGlob(escape.Replace(path) + "/" + strings.Join(parts[plain:], "/"))
	if err != nil {
		return g
	}
	found.text = g.text
	return found
}

// Has reports whether a pattern, as in TarOptions.Paths, matches anything. One
// that does not parse matches nothing.
func (t *Tree) Has(pattern string) bool {
	g, err := parseGlob(pattern)
	return err == nil && t.has(g)
}

func (t *Tree) has(g glob) bool {
	return t.root.walk(".", func(path string, _ *inode) error {
		if g.match(path) {
			return io.EOF
		}
		return nil
	}) == io.EOF
}

// choose returns a test for what patterns take of the tree, all of it if there
// are none, and a *manifests.NotFoundError if one of them takes nothing.
func (t *Tree) choose(patterns []string) (func(path string) bool, error) {
	globs, err := parseGlobs(patterns)
	if err != nil || len(globs) == 0 {
		return func(string) bool { return true }, err
	}
	for i, g := range globs {
		globs[i] = t.resolve(g)
		if !t.has(globs[i]) {
			return nil, &manifests.NotFoundError{Subject: "path " + quote.Text(g.text), In: "the image"}
		}
	}
	return anyGlob(globs), nil
}

func anyGlob(globs []glob) func(path string) bool {
	return func(path string) bool {
		for _, g := range globs {
			if g.match(path) {
				return true
			}
		}
		return len(globs) == 0
	}
}
