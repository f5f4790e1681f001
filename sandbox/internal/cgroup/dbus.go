//go:build linux

package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bus is a connection to a message bus, as far as one call of systemd's needs
// it. It follows the D-Bus specification, version 0.43; package net and what
// builds on it would be initialised with every start of a sandbox.
type bus struct {
	f      *os.File
	serial uint32
	name   string // the bus's for this connection
}

// maxMessage bounds a message of the bus: those that are read here have some
// hundred bytes.
const maxMessage = 1 << 20

// Types of messages, and fields of their headers.
const (
	busCall, busReply, busError, busSignal = 1, 2, 3, 4

	fieldPath, fieldInterface, fieldMember, fieldErrorName, fieldReplySerial, fieldDestination, fieldSignature = 1, 2, 3, 4, 5, 6, 8
)

// dialBus connects, and lets the bus see by the socket who calls: that is right
// in user namespaces too.
func dialBus(path string, deadline time.Time) (_ *bus, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	if err := f.SetDeadline(deadline); err != nil {
		return nil, err
	}
	b := &bus{f: f}
	if err := b.authenticate(); err != nil {
		return nil, err
	}
	hello, err := b.call(busObject, "Hello", nil)
	if err != nil {
		return nil, err
	}
	b.name, err = hello.body.string()
	return b, err
}

func (b *bus) close() error { return b.f.Close() }

// authenticate proves who calls by what the kernel says of the socket.
func (b *bus) authenticate() error {
	if _, err := b.f.WriteString("\x00AUTH EXTERNAL\r\nDATA\r\n"); err != nil {
		return err
	}
	for _, want := range []string{"DATA", "OK"} {
		line, err := b.line()
		if err != nil {
			return err
		}
		if word, _, _ := strings.Cut(line, " "); word != want {
			return fmt.Errorf("the bus answers %q", line)
		}
	}
	_, err := b.f.WriteString("BEGIN\r\n")
	return err
}

// line reads a line of the authentication, byte by byte: what follows is not
// lines.
func (b *bus) line() (string, error) {
	const maxLine = 256 // "OK" and 32 digits
	var line []byte
	for len(line) < maxLine {
		var c [1]byte
		if _, err := io.ReadFull(b.f, c[:]); err != nil {
			return "", err
		}
		if line = append(line, c[0]); c[0] == '\n' {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
	}
	return "", errors.New("the bus answers without an end")
}

// object is what is called: a name on the bus, a path and an interface.
type object struct{ name, path, face string }

var (
	busObject     = object{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"}
	systemdObject = object{"org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"}
)

// call sends a call with arguments and waits for its answer, whose body it
// returns. Signals that come meanwhile are lost, but for those that keep takes.
func (b *bus) call(o object, method string, args *wire, keep ...func(*busMessage)) (*busMessage, error) {
	b.serial++
	if args == nil {
		args = &wire{}
	}
	if _, err := b.f.Write(callMessage(b.serial, o, method, args)); err != nil {
		return nil, err
	}
	for {
		m, err := b.read()
		if err != nil {
			return nil, err
		}
		switch {
		case m.kind == busSignal:
			for _, k := range keep {
				k(m)
			}
		case m.reply != b.serial:
		case m.kind == busError:
			text := m.errorName
			if strings.HasPrefix(m.signature, "s") {
				if s, err := m.body.string(); err == nil {
					text = s
				}
			}
			return nil, errors.New(text)
		case m.kind == busReply:
			return m, nil
		}
	}
}

func callMessage(serial uint32, o object, method string, args *wire) []byte {
	var w wire
	w.b = append(w.b, 'l', busCall, 0, 1)
	w.uint32(uint32(len(args.b)))
	w.uint32(serial)
	w.array(8, func() {
		for _, f := range []struct {
			code  byte
			kind  string
			value string
		}{{fieldPath, "o", o.path}, {fieldInterface, "s", o.face}, {fieldMember, "s", method}, {fieldDestination, "s", o.name}, {fieldSignature, "g", args.sig}} {
			if f.value == "" {
				continue
			}
			w.align(8)
			w.b = append(w.b, f.code)
			w.signature(f.kind)
			if f.kind == "g" {
				w.signature(f.value)
			} else {
				w.string(f.value)
			}
		}
	})
	w.align(8)
	return append(w.b, args.b...)
}

// busMessage is what is of interest in a message that was read.
type busMessage struct {
	kind      byte
	reply     uint32
	errorName string
	member    string
	signature string
	body      *unwire
}

func (b *bus) read() (*busMessage, error) { return readMessage(b.f) }

func readMessage(r io.Reader) (*busMessage, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	order, fields, body, err := sizes(head)
	if err != nil {
		return nil, err
	}
	rest := make([]byte, (fields+7)&^7+body)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	return parseMessage(order, append(head, rest...), fields)
}

// sizes reads the fixed part of a message: how long its fields and its body are.
func sizes(head []byte) (order binary.ByteOrder, fields, body int, err error) {
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return nil, 0, 0, errors.New("the bus sends what is no message")
	}
	f, n := order.Uint32(head[12:]), order.Uint32(head[4:])
	if f > maxMessage || n > maxMessage {
		return nil, 0, 0, errors.New("the bus sends a message that is too long")
	}
	return order, int(f), int(n), nil
}

// parseMessage reads a whole message, whose fields end where sizes says.
func parseMessage(order binary.ByteOrder, raw []byte, fields int) (*busMessage, error) {
	m := &busMessage{kind: raw[1]}
	u := &unwire{b: raw[:16+fields], at: 16, order: order}
	for u.at < len(u.b) {
		if err := m.field(u); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
	}
	m.body = &unwire{b: raw[16+(fields+7)&^7:], order: order}
	return m, nil
}

// field reads one field of the header. All that are defined have one of four types.
func (m *busMessage) field(u *unwire) error {
	u.align(8)
	code, err := u.byte()
	if err != nil {
		return err
	}
	kind, err := u.signature()
	if err != nil {
		return err
	}
	var text string
	switch kind {
	case "u":
		n, err := u.uint32()
		if code == fieldReplySerial {
			m.reply = n
		}
		return err
	case "s", "o":
		text, err = u.string()
	case "g":
		text, err = u.signature()
	default:
		err = errors.New("a field of an unknown type")
	}
	switch code {
	case fieldErrorName:
		m.errorName = text
	case fieldMember:
		m.member = text
	case fieldSignature:
		m.signature = text
	}
	return err
}

// wire builds arguments, little-endian. Where they end up in the message they
// are aligned as they are here.
type wire struct {
	b   []byte
	sig string
}

func (w *wire) align(n int) {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *wire) uint32(n uint32) {
	w.align(4)
	w.b = binary.LittleEndian.AppendUint32(w.b, n)
}

func (w *wire) string(s string) {
	w.uint32(uint32(len(s)))
	w.b = append(append(w.b, s...), 0)
}

func (w *wire) signature(s string) {
	w.b = append(append(append(w.b, byte(len(s))), s...), 0)
}

// array writes elements that are aligned to n.
func (w *wire) array(n int, elements func()) {
	w.uint32(0)
	size := len(w.b) - 4
	w.align(n)
	from := len(w.b)
	elements()
	binary.LittleEndian.PutUint32(w.b[size:], uint32(len(w.b)-from))
}

// property writes (sv); value writes what kind says.
func (w *wire) property(name, kind string, value func()) {
	w.align(8)
	w.string(name)
	w.signature(kind)
	value()
}

// unwire reads what wire writes, in either order of bytes. Every method fails
// at the end.
type unwire struct {
	b     []byte
	at    int
	order binary.ByteOrder
}

func (u *unwire) align(n int) { u.at = (u.at + n - 1) &^ (n - 1) }

func (u *unwire) take(n int) ([]byte, error) {
	if n < 0 || u.at > len(u.b) || n > len(u.b)-u.at {
		return nil, io.ErrUnexpectedEOF
	}
	u.at += n
	return u.b[u.at-n : u.at], nil
}

func (u *unwire) byte() (byte, error) {
	b, err := u.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (u *unwire) uint32() (uint32, error) {
	u.align(4)
	b, err := u.take(4)
	if err != nil {
		return 0, err
	}
	return u.order.Uint32(b), nil
}

func (u *unwire) string() (string, error) {
	n, err := u.uint32()
	if err != nil || n > math.MaxInt32 {
		return "", io.ErrUnexpectedEOF
	}
	return u.text(int(n))
}

func (u *unwire) signature() (string, error) {
	n, err := u.byte()
	if err != nil {
		return "", err
	}
	return u.text(int(n))
}

// text reads n bytes and the zero after them.
func (u *unwire) text(n int) (string, error) {
	b, err := u.take(n)
	if err != nil {
		return "", err
	}
	if end, err := u.byte(); err != nil || end != 0 || bytes.IndexByte(b, 0) >= 0 {
		return "", errors.New("a text with zeros in it, or without one after it")
	}
	return string(b), nil
}
