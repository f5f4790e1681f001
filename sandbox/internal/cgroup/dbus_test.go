//go:build linux

package cgroup

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeBus answers calls of one connection by answer, and returns where it
// listens. TestGuestLimits, in a virtual machine, has the real one.
func fakeBus(t *testing.T, greet string, answer func(m *busMessage) []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, len("\x00AUTH EXTERNAL\r\nDATA\r\n"))); err != nil {
			return
		}
		_, _ = io.WriteString(c, greet)
		if !strings.HasPrefix(greet, "DATA\r\nOK") {
			return
		}
		if _, err := io.ReadFull(c, make([]byte, len("BEGIN\r\n"))); err != nil {
			return
		}
		for {
			m, err := readMessage(c)
			if err != nil {
				return
			}
			_, _ = c.Write(answer(m))
		}
	}()
	return path
}

// messageOf makes what a bus sends: an answer, an error or a signal.
func messageOf(kind byte, reply uint32, member, errorName string, body *wire) []byte {
	w := wire{b: []byte{'l', kind, 0, 1}}
	w.uint32(uint32(len(body.b)))
	w.uint32(1)
	w.array(8, func() {
		field := func(code byte, kind string, value func()) {
			w.align(8)
			w.b = append(w.b, code)
			w.signature(kind)
			value()
		}
		if reply != 0 {
			field(fieldReplySerial, "u", func() { w.uint32(reply) })
		}
		if member != "" {
			field(fieldMember, "s", func() { w.string(member) })
		}
		if errorName != "" {
			field(fieldErrorName, "s", func() { w.string(errorName) })
		}
		field(fieldSignature, "g", func() { w.signature(body.sig) })
	})
	w.align(8)
	return append(w.b, body.b...)
}

func textBody(s string) *wire {
	w := &wire{sig: "s"}
	w.string(s)
	return w
}

func jobBody(unit, result string) *wire {
	w := &wire{sig: "uoss"}
	w.uint32(7)
	w.string("/org/freedesktop/systemd1/job/7")
	w.string(unit)
	w.string(result)
	return w
}

// TestScope plays systemd: the call is understood, and its end waited for.
func TestScope(t *testing.T) {
	for _, c := range []struct {
		name, result, fault, want string
		pid                       int
	}{
		{"done", "done", "", "", os.Getpid()},
		{"failed", "failed", "", `ended with "failed"`, os.Getpid()},
		{"refused", "", "Access denied", "Access denied", os.Getpid()},
		{"another pid namespace", "", "", "outside of this pid namespace", os.Getpid() + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []byte
			serial := uint32(0)
			path := fakeBus(t, "DATA\r\nOK 0123\r\n", func(m *busMessage) []byte {
				serial++
				reply := func(body *wire) []byte { return messageOf(busReply, serial, "", "", body) }
				switch m.member {
				case "Hello":
					return reply(textBody(":1.7"))
				case "GetConnectionUnixProcessID":
					pid := &wire{sig: "u"}
					pid.uint32(uint32(c.pid))
					return reply(pid)
				case "StartTransientUnit":
					asked = m.body.b
					if c.fault != "" {
						return messageOf(busError, serial, "", "org.freedesktop.DBus.Error.AccessDenied", textBody(c.fault))
					}
					// Of another unit, ours before the answer, and the answer.
					return bytes.Join([][]byte{
						messageOf(busSignal, 0, "JobRemoved", "", jobBody("other.scope", "canceled")),
						messageOf(busSignal, 0, "JobRemoved", "", jobBody("x.scope", c.result)),
						reply(textBody("job")),
					}, nil)
				}
				return reply(&wire{})
			})
			b, err := dialBus(path, time.Now().Add(10*time.Second))
			check(t, err)
			defer b.close()
			err = b.startScope("x.scope", "user-0.slice")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if want := scopeArgs("x.scope", "user-0.slice", os.Getpid()).b; c.result != "" && !bytes.Equal(asked, want) {
				t.Errorf("the bus was asked %q, not %q", asked, want)
			}
		})
	}
}

// TestBusRefuses: what is no bus is an error, in time.
func TestBusRefuses(t *testing.T) {
	for _, greet := range []string{"", "REJECTED EXTERNAL\r\n", "DATA\r\nERROR\r\n", strings.Repeat("x", 1000), "DATA\r\nOK\r\n"} {
		path := fakeBus(t, greet, func(*busMessage) []byte { return []byte("no message at all, of no order") })
		if b, err := dialBus(path, time.Now().Add(300*time.Millisecond)); err == nil {
			b.close()
			t.Errorf("%q was a bus", greet)
		}
	}
	if _, err := dialBus(filepath.Join(t.TempDir(), "none"), time.Now()); err == nil {
		t.Error("nobody listens, and no error")
	}
}

func TestUnits(t *testing.T) {
	for own, want := range map[string]string{
		"/user.slice/user-0.slice/session-1.scope":                    "user-0.slice",
		"/system.slice/a.service":                                     "system.slice",
		"/user.slice/user-0.slice/user@0.service/app.slice/run.scope": "user-0.slice",
		"/init.scope": "", "/": "", "": "",
	} {
		if got := sliceOf(&v2Place{"/sys/fs/cgroup", "/sys/fs/cgroup" + own}); got != want {
			t.Errorf("slice of %q: %q, want %q", own, got, want)
		}
	}
	for own, want := range map[string]string{"/c/a.slice/b.service/sub/more": "/c/a.slice/b.service", "/c/a.scope": "/c/a.scope", "/c/none": "/c/none", "/": "/"} {
		if got := unitOf(own); got != want {
			t.Errorf("unit of %q: %q, want %q", own, got, want)
		}
	}
	for _, c := range []struct {
		table     string
		uid, want int
		ok        bool
	}{
		{"         0          0 4294967295\n", 0, 0, true},
		{"         0       1000          1\n         1     100000      65536\n", 0, 1000, true},
		{"0 1000 1\n1 100000 65536\n", 7, 100006, true},
		{"0 1000 1\n", 65534, 0, false},
		{"", 0, 0, false},
	} {
		if got, ok := outside(c.table, c.uid); got != c.want || ok != c.ok {
			t.Errorf("%d of %q: %d, %v", c.uid, c.table, got, ok)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(messageOf(busSignal, 0, "JobRemoved", "", jobBody("x.scope", "done")))
	f.Add(messageOf(busError, 3, "", "org.freedesktop.DBus.Error", textBody("no")))
	f.Add(callMessage(1, systemdObject, "StartTransientUnit", scopeArgs("x.scope", "", 1)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < 16 {
			return
		}
		order, fields, body, err := sizes(raw[:16])
		if err != nil || len(raw) != 16+(fields+7)&^7+body {
			return
		}
		m, err := parseMessage(order, raw, fields)
		if err != nil {
			return
		}
		if unit, result, ok := m.jobRemoved(); ok && order == binary.ByteOrder(binary.LittleEndian) {
			again := jobBody(unit, result)
			if len(again.b) > body {
				t.Errorf("%q, %q of %d bytes", unit, result, body)
			}
		}
	})
}
