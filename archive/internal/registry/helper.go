package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/imgpack/imgpack/internal/quote"
)

const (
	helperTimeout = time.Minute // some ask the user, or a cloud
	maxHelperText = 64 << 10    // tokens of clouds are a few KiB
	identityUser  = "<token>"   // the user name under which helpers give an identity token
)

var helperName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`) })

// runHelper asks docker-credential-NAME for a server's credential, in the
// protocol of docker-credential-helpers. That it knows none is no error. What
// a helper prints is never part of an error's text.
func runHelper(ctx context.Context, name, server string) (Credential, error) {
	if !helperName().MatchString(name) {
		return Credential{}, fmt.Errorf("credential helper name %s is not valid", quote.Text(name))
	}
	program := "docker-credential-" + name
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	out := &boundedBuffer{left: maxHelperText}
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stdout = out
	cmd.WaitDelay = time.Second // for a grandchild that keeps the pipe open
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return Credential{}, fmt.Errorf("run %s: %w", program, ctx.Err())
	case out.full:
		return Credential{}, fmt.Errorf("run %s: it printed more than %d bytes", program, maxHelperText)
	case err != nil && bytes.Contains(out.buf.Bytes(), []byte("credentials not found")):
		return Credential{}, nil
	case err != nil:
		return Credential{}, fmt.Errorf("run %s: %w", program, err)
	}
	return parseHelper(out.buf.Bytes(), program)
}

func parseHelper(raw []byte, program string) (Credential, error) {
	var reply struct{ Username, Secret string }
	if json.Unmarshal(raw, &reply) != nil {
		return Credential{}, fmt.Errorf("run %s: its answer is not that of a credential helper", program)
	}
	if reply.Username == identityUser {
		return Credential{IdentityToken: reply.Secret}, nil
	}
	return Credential{Username: reply.Username, Password: reply.Secret}, nil
}

// boundedBuffer keeps a program's output up to a limit, past which writing
// fails and ends the program. It does not embed the buffer, whose ReadFrom
// would know no limit.
type boundedBuffer struct {
	buf  bytes.Buffer
	left int
	full bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full = true
		return 0, errors.New("too much output")
	}
	b.left -= len(p)
	return b.buf.Write(p)
}
