//go:build !linux || 386 || arm || mips || mipsle

// Package early starts nothing on this system.
package early

// Begin does nothing on this system.
func Begin() {}
