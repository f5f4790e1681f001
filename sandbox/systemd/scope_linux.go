package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

func init() { cgroup.Register(startScope) }

const (
	service = "org.freedesktop.systemd1"
	object  = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager = service + ".Manager"
	jobDone = "JobRemoved"
)

// property is one of a unit's, as StartTransientUnit has it.
type property struct {
	Name  string
	Value dbus.Variant
}

// unit is another that is to be started; there is none.
type unit struct {
	Name       string
	Properties []property
}

// startScope has systemd make a scope of this process, and waits until it is
// there. Errors name the bus.
func startScope(ctx context.Context, s cgroup.Scope) error {
	err := ask(ctx, s)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what it led to says less
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err // it names the bus, too
	}
	return fmt.Errorf("%s: %w", s.Bus, err)
}

func ask(ctx context.Context, s cgroup.Scope) error {
	conn, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := knowsUs(ctx, conn); err != nil {
		return err
	}
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(service), dbus.WithMatchInterface(manager), dbus.WithMatchMember(jobDone)); err != nil {
		return err
	}
	signals := make(chan *dbus.Signal, 16) // what is more waits
	conn.Signal(signals)
	call := conn.Object(service, object).CallWithContext(ctx, manager+".StartTransientUnit", 0, s.Name, "fail", properties(s), []unit{})
	if call.Err != nil {
		return call.Err
	}
	return await(s.Name, signals)
}

// dial connects, and lets the bus see by the socket who calls. Neither side can
// send descriptors. The connection ends with ctx.
func dial(ctx context.Context, s cgroup.Scope) (*dbus.Conn, error) {
	socket, err := new(net.Dialer).DialContext(ctx, "unix", s.Bus)
	if err != nil {
		return nil, err
	}
	stream := struct {
		io.Reader // a message is read in small pieces
		io.WriteCloser
	}{bufio.NewReader(socket), socket}
	conn, err := dbus.NewConn(stream, dbus.WithContext(ctx))
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(s.UID))})
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// knowsUs makes sure that the bus, and so systemd, knows this process by the
// same number: it would move another one otherwise.
func knowsUs(ctx context.Context, conn *dbus.Conn) error {
	var pid uint32
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, conn.Names()[0]).Store(&pid); err != nil {
		return err
	}
	if int64(pid) != int64(os.Getpid()) {
		return errors.New("it is outside of this pid namespace")
	}
	return nil
}

func properties(s cgroup.Scope) []property {
	all := []property{
		{"Description", dbus.MakeVariant("imgpack and what it runs")},
		{"Delegate", dbus.MakeVariant(true)},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(os.Getpid())})},
	}
	if s.Slice != "" {
		all = append(all, property{"Slice", dbus.MakeVariant(s.Slice)})
	}
	return all
}

// await waits for the end of the job that starts a unit. Systemd may have told
// it before it answered the call.
func await(name string, signals <-chan *dbus.Signal) error {
	for signal := range signals {
		var job struct {
			id           uint32
			path         dbus.ObjectPath
			unit, result string
		}
		if signal.Name != manager+"."+jobDone || dbus.Store(signal.Body, &job.id, &job.path, &job.unit, &job.result) != nil || job.unit != name {
			continue
		}
		if job.result != "done" {
			return fmt.Errorf("starting it ended with %q", job.result)
		}
		return nil
	}
	return errors.New("the bus ended the connection")
}
