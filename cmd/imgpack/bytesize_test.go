package main

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "512M": 512 << 20, "512m": 512 << 20, "4G": 4 << 30, "1.5GiB": 3 << 29, "2 KiB": 2048,
		"700MB": 700e6, "1kB": 1000, "1K": 1024, "2T": 2 << 40, "2TB": 2e12, "12B": 12,
		"": 0, "0": 0, "-1": 0, "+1": 0, "G": 0, "4X": 0, "4GG": 0, "4iB": 0, "1e3": 0, "nan": 0, "inf": 0, "0x10": 0, "1_0": 0, "0.1": 0, "99999999T": 0, "4 G B": 0,
	} {
		got, err := parseSize(text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}
