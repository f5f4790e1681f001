package segment

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// TestGolden reads segments written in the past. They are never written anew.
func TestGolden(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	records := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n\n")[1:]
	if len(records) != 9 {
		t.Fatalf("%d vectors", len(records))
	}
	for _, record := range records {
		lines := strings.Split(record, "\n")
		var parts [3][]byte
		for i := range parts {
			if parts[i], err = hex.DecodeString(strings.TrimPrefix(lines[i+1], "-")); err != nil {
				t.Fatal(err)
			}
		}
		prefix, content, blob := parts[0], parts[1], parts[2]
		if got := decode(t, blob, prefix, len(content), 2); !bytes.Equal(got, content) {
			t.Errorf("%s: content differs", lines[0])
		}
	}
}
