package sandbox

import (
	"errors"
	"syscall"
)

// WireError is an error on its way to another process. A *StartError or an
// *UnsupportedError arrives as one, and the errno of any arrives.
type WireError struct {
	Text    string `json:",omitempty"` // of what the error wraps, where it is one of these
	Errno   int    `json:",omitempty"`
	Step    string `json:",omitempty"`
	Code    int    `json:",omitempty"` // not 0: a StartError
	Hint    string `json:",omitempty"`
	Feature string `json:",omitempty"` // not empty: an UnsupportedError
	Setting string `json:",omitempty"`
}

// ToWire makes a WireError of an error that is not nil.
func ToWire(err error) *WireError {
	w := &WireError{Text: err.Error()}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		w.Errno = int(errno)
	}
	if un, ok := errors.AsType[*UnsupportedError](err); ok {
		w.Feature, w.Setting, w.Hint, w.Text = un.Feature, un.Setting, un.Hint, ""
		if un.Err != nil {
			w.Text = un.Err.Error()
		}
	} else if start, ok := errors.AsType[*StartError](err); ok {
		w.Step, w.Code, w.Hint, w.Text = start.Step, start.Code, start.Hint, start.Err.Error()
	}
	return w
}

// Err is the error again.
func (w *WireError) Err() error {
	var cause error
	if w.Text != "" {
		cause = &remoteError{w.Text, syscall.Errno(w.Errno)}
	}
	switch {
	case w.Feature != "":
		return &UnsupportedError{Feature: w.Feature, Setting: w.Setting, Err: cause, Hint: w.Hint}
	case w.Code != 0:
		return &StartError{Step: w.Step, Code: w.Code, Err: cause, Hint: w.Hint}
	}
	return cause
}

// remoteError is an error of another process with its errno.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}
