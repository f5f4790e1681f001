package layertar

import (
	"fmt"
	"strings"
)

// fault is a refusal that does not know its entry yet.
type fault struct {
	kind  string
	text  string
	limit string // NAME of the limit that is passed, if it can be moved
}

func (f *fault) Error() string { return f.text }

func bad(kind, format string, args ...any) error {
	return &fault{kind: kind, text: fmt.Sprintf(format, args...)}
}

// Clean makes a name of an entry relative and drops what means nothing: a
// leading slash, empty components, ".". A name with a ".." component is
// refused: no builder writes it, and tools differ over it. The error is an
// *Error.
func Clean(name string) (string, error) {
	cleaned, err := clean(name, DefaultDepth)
	return cleaned, atEntry(name, err)
}

func clean(name string, maxDepth int64) (string, error) {
	if err := checkRaw(name, maxDepth); err != nil {
		return "", err
	}
	plain, depth := true, int64(0)
	for rest, more := strings.TrimSuffix(name, "/"), true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		switch {
		case part == "" || part == ".":
			plain = false
		case part == "..":
			return "", bad(UnsafePath, `a component is ".."`)
		case len(part) > MaxComponent:
			return "", bad(Limit, "a component is longer than %d bytes", MaxComponent)
		default:
			depth++
		}
	}
	switch {
	case depth > maxDepth:
		return "", past(LimitDepth, "more than %d components", maxDepth)
	case depth == 0:
		return ".", nil
	case plain:
		return strings.TrimSuffix(name, "/"), nil
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, part := range parts {
		if part != "" && part != "." {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "/"), nil
}

func checkRaw(name string, maxDepth int64) error {
	switch {
	case name == "":
		return bad(Malformed, "it has no name")
	case strings.Trim(name, "\n") == "":
		return bad(Malformed, "its name is nothing but newlines")
	case strings.IndexByte(name, 0) >= 0:
		return bad(Malformed, "its name holds a NUL")
	case len(strings.Trim(name, "/")) <= MaxPath:
		return nil
	case int64(strings.Count(name, "/")) > maxDepth:
		return bad(Limit, "more than %d components", maxDepth)
	}
	return bad(Limit, "its name is longer than %d bytes", MaxPath)
}

// split cuts a cleaned name into directory and last component.
func split(name string) (parent, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}

func join(parent, base string) string {
	if parent == "." {
		return base
	}
	return parent + "/" + base
}

const (
	whiteout = ".wh."
	aufs     = ".wh..wh." // names of AUFS's own files, but for one:
	opaque   = ".wh..wh..opq"
)

// hides finds out whether a name is a whiteout, and of what.
func hides(e *Entry) error {
	if !strings.Contains(e.Name, whiteout) {
		return nil
	}
	for rest, more := e.Parent, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if strings.HasPrefix(part, aufs) {
			e.ignore(NoteAUFS, "a file of the AUFS file system")
			return nil
		}
		if strings.HasPrefix(part, whiteout) {
			return bad(Malformed, "it lies below a whiteout")
		}
	}
	hidden, ok := strings.CutPrefix(e.Base, whiteout)
	switch {
	case !ok:
	case e.Base == opaque:
		e.Kind, e.Target = Opaque, e.Parent
	case strings.HasPrefix(e.Base, aufs):
		e.ignore(NoteAUFS, "a file of the AUFS file system")
	case hidden == "" || hidden == "." || hidden == "..":
		return bad(UnsafePath, "a whiteout of %q", hidden)
	default:
		e.Kind, e.Target = Whiteout, join(e.Parent, hidden)
	}
	return nil
}

func (e *Entry) ignore(kind, text string) {
	e.Kind = Ignored
	e.note(kind, "%s", text)
}

func (e *Entry) note(kind, format string, args ...any) {
	e.Notes = append(e.Notes, Note{kind, fmt.Sprintf(format, args...)})
}

// linkTarget cleans the target of a hard link, which is a name of the tree.
func linkTarget(target string, maxDepth int64) (string, error) {
	if target == "" {
		return "", bad(Malformed, "a hard link to nothing")
	}
	cleaned, err := clean(target, maxDepth)
	if err != nil {
		f := err.(*fault)
		return "", &fault{f.kind, fmt.Sprintf("a hard link to %+.200q: %s", target, f.text), f.limit}
	}
	probe := Entry{Name: cleaned}
	probe.Parent, probe.Base = split(cleaned)
	if hides(&probe) != nil || probe.Kind != 0 {
		return "", bad(Malformed, "a hard link to a whiteout, %+.200q", target)
	}
	if cleaned == "." {
		return "", bad(Malformed, "a hard link to the top directory")
	}
	return cleaned, nil
}
