package main

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// byteSize is a flag's number of bytes: 512M, 4G, 1.5 GiB, 700MB. A letter
// alone counts in 1024s, as with split and docker; kB, MB, GB and TB count in
// 1000s.
type byteSize int64

func (s *byteSize) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type is the word in help where the usage text has none.
func (s *byteSize) Type() string { return "SIZE" }

func (s *byteSize) Set(text string) error {
	n, err := parseSize(text)
	*s = byteSize(n)
	return err
}

var errSize = errors.New("not a size such as 512M, 4G or 700MB")

// sizeUnits are the letters of sizes, each a thousand times the one before.
const sizeUnits = "KMGT"

var sizeText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(?:([KMGT])(I?B)?|B)?$`)
})

func parseSize(text string) (int64, error) {
	parts := sizeText().FindStringSubmatch(strings.ToUpper(text))
	if parts == nil {
		return 0, errSize
	}
	n, err := strconv.ParseFloat(parts[1], 64)
	if err != nil {
		return 0, errSize
	}
	step := 1024.0
	if parts[3] == "B" {
		step = 1000
	}
	if parts[2] != "" {
		n *= math.Pow(step, float64(strings.Index(sizeUnits, parts[2])+1))
	}
	if n < 1 || n >= math.MaxInt64 {
		return 0, errSize
	}
	return int64(n), nil
}
