//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// explainExec turns the errno of a command that is there into words and one of
// docker's codes. It looks at the file with the user's rights, so it may see
// nothing.
func explainExec(p string, err error) error {
	head := readHead(p)
	prog := inspect(head)
	fail := func(code int, hint, format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		return &StartError{Step: "execute " + clip(p), Code: code, Err: &execError{text, err}, Hint: hint}
	}
	switch {
	case errors.Is(err, unix.ENOENT) && prog.interpreter != "":
		what := "loader"
		if prog.script {
			what = "interpreter"
		}
		return fail(CodeNoSuch, prog.wrongArch(), "its %s %s is not in the image", what, clip(prog.interpreter))
	case errors.Is(err, unix.ENOENT):
		return fail(CodeNoSuch, "", "no such file")
	case errors.Is(err, unix.ENOEXEC):
		if arch := prog.wrongArch(); arch != "" {
			return fail(CodeNotExec, "", "exec format error: %s", arch)
		}
		return fail(CodeNotExec, "a script needs a #! line", "exec format error")
	case errors.Is(err, unix.EISDIR):
		return fail(CodeNotExec, "", "is a directory")
	case errors.Is(err, unix.ELOOP):
		return fail(CodeNotExec, "", "too many symbolic links, or a link of /proc to a running program")
	case errors.Is(err, unix.ENOTDIR):
		return fail(CodeNoSuch, "", "not a directory")
	}
	return fail(CodeNotExec, "", "%v", err)
}

// execError has its own text and keeps the errno.
type execError struct {
	text string
	err  error
}

func (e *execError) Error() string { return e.text }
func (e *execError) Unwrap() error { return e.err }

// readHead returns the beginning of a regular file, or nothing.
func readHead(p string) []byte {
	fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxHead)) // what can be read is enough
	return b
}

// notFound tells an absent command. A path names the first part that is
// missing, which is what people look for next.
func notFound(name string) error {
	e := &StartError{Step: "execute " + clip(name), Code: CodeNoSuch, Err: &execError{"not found in PATH", unix.ENOENT}}
	if name == "" {
		e.Err = &execError{"the command is empty", unix.ENOENT}
	}
	if strings.Contains(name, "/") {
		e.Err = &execError{"no such file", unix.ENOENT}
		if dir := missingDir(name); dir != "" {
			e.Err = &execError{fmt.Sprintf("no such file: the image has no %s", clip(dir)), unix.ENOENT}
		}
	}
	return e
}

func missingDir(name string) string {
	missing := ""
	for dir := path.Dir(name); dir != "/" && dir != "."; dir = path.Dir(dir) {
		if unix.Access(dir, unix.F_OK) == nil {
			break
		}
		missing = dir
	}
	return missing
}
