//go:build race

package goflate

const raceEnabled = true
