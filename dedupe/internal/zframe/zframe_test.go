package zframe

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func frame(t testing.TB, p []byte, o ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(p, nil)
}

func TestCheck(t *testing.T) {
	content := bytes.Repeat([]byte("content, "), 60_000)
	plain := frame(t, content, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	summed := frame(t, content, zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true))
	skippable := []byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x")
	n := len(content)
	for name, c := range map[string]struct {
		p     []byte
		limit int
		want  error
	}{
		"at the limit":       {plain, n, nil},
		"with a checksum":    {summed, n, nil},
		"one past the limit": {plain, n - 1, ErrLength},
		"nothing":            {nil, n, ErrFrame},
		"no frame":           {content, n, ErrFrame},
		"skippable":          {skippable, n, ErrFrame},
		"two":                {slices.Concat(plain, plain), n, ErrFrame},
		"a skippable behind": {slices.Concat(plain, skippable), n, ErrFrame},
		"a byte behind":      {append(slices.Clone(plain), 0), n, ErrFrame},
		"no checksum":        {summed[:len(summed)-4], n, ErrFrame},
		"a large window":     {frame(t, content, zstd.WithWindowSize(1<<20), zstd.WithSingleSegment(false)), n, ErrWindow},
		"a dictionary":       {frame(t, content, zstd.WithEncoderDictRaw(7, content[:1000])), n, ErrDict},
	} {
		if _, _, err := Check(c.p, c.limit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for i := range plain {
		if _, _, err := Check(plain[:i], n); err == nil {
			t.Errorf("cut after %d of %d bytes: taken", i, len(plain))
		}
	}
	if window, length, err := Check(plain, n); window != 0 || length != n || err != nil {
		t.Errorf("window %d, length %d, %v", window, length, err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(frame(f, []byte("content")), 7)
	f.Add(frame(f, make([]byte, 1<<18)), 1<<18)
	f.Fuzz(func(t *testing.T, p []byte, limit int) {
		limit = min(max(limit, 0), 1<<20)
		window, length, err := Check(p, limit)
		if err == nil && (window > limit || length > limit || length < -1) {
			t.Errorf("window %d, length %d, limit %d", window, length, limit)
		}
	})
}
