package container

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The signals that have no names of their own, as libc counts them.
const (
	rtMin = 34
	rtMax = 64
)

// SignalError reports a text that names no signal.
type SignalError struct{ Text string }

func (e *SignalError) Error() string { return fmt.Sprintf("%q is no signal", e.Text) }

// ParseSignal reads a signal as docker does: "TERM", "SIGTERM", "15",
// "RTMIN+3". The error is a *SignalError.
func ParseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		if n < 1 || n > rtMax {
			return 0, &SignalError{text}
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	switch base, offset, ok := cutSign(name); {
	case base == "RTMIN" && offset >= 0, base == "RTMAX" && offset <= 0:
		n := rtMin + offset
		if base == "RTMAX" {
			n = rtMax + offset
		}
		if ok && n >= rtMin && n <= rtMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, &SignalError{text}
}

// cutSign splits "RTMIN+3".
func cutSign(s string) (base string, offset int, ok bool) {
	i := strings.IndexAny(s, "+-")
	if i < 0 {
		return s, 0, true
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 8)
	offset = int(n)
	if s[i] == '-' {
		offset = -offset
	}
	return s[:i], offset, err == nil
}
