//go:build linux

package sandbox

import (
	"testing"
)

func TestHello(t *testing.T) {
	im := newImage(t)
	r := good(t, im.spec("hello", "world"))
	if r.out != "hello world\n" {
		t.Errorf("got %q", r.out)
	}
	t.Log("\n" + r.explains)
}
