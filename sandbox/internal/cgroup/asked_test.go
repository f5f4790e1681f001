//go:build linux

package cgroup_test

import _ "github.com/imgpack/imgpack/sandbox/systemd" // where systemd runs, tests make groups in its scopes
