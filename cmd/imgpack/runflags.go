package main

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox"
)

// each reads the values of a repeatable flag.
func each[T any](texts []string, read func(string) (T, error)) (out []T, err error) {
	for _, text := range texts {
		v, err := read(text)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// parseHost reads a value of --add-host: NAME:IP or NAME=IP.
func parseHost(text string) (sandbox.HostEntry, error) {
	var h sandbox.HostEntry
	cut := strings.IndexAny(text, ":=")
	if cut <= 0 {
		return h, usagef("--add-host is NAME:IP, not %s", quote.Text(text))
	}
	name, ip := text[:cut], text[cut+1:]
	if ip == "host-gateway" {
		return h, usagef("--add-host: host-gateway is not offered").hint("a sandbox reaches the host with --network host alone, at 127.0.0.1")
	}
	if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
		ip = ip[1 : len(ip)-1]
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Zone() != "" {
		return h, usagef("--add-host: %s is no IP address", quote.Text(ip))
	}
	if strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		return h, usagef("--add-host: %s is no host name", quote.Text(name))
	}
	return sandbox.HostEntry{Name: name, Addr: addr.String()}, nil
}

// parseUlimit reads a value of --ulimit: NAME=SOFT[:HARD], where -1 is no
// limit.
func parseUlimit(text string) (sandbox.Rlimit, error) {
	name, values, ok := strings.Cut(text, "=")
	l := sandbox.Rlimit{Name: name}
	if !ok {
		return l, usagef("--ulimit is NAME=SOFT[:HARD], not %s", quote.Text(text))
	}
	if names := sandbox.RlimitNames(); !slices.Contains(names, name) {
		return l, usagef("--ulimit knows no %s", quote.Text(name)).hint("%s", strings.Join(names, ", "))
	}
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	var err error
	if l.Soft, err = ulimitNumber(text, soft); err != nil {
		return l, err
	}
	if l.Hard, err = ulimitNumber(text, hard); err != nil {
		return l, err
	}
	if l.Soft > l.Hard {
		return l, usagef("--ulimit %s: the soft limit is above the hard one", quote.Text(text))
	}
	return l, nil
}

// lastOfEach leaves of limits with one name the last, as docker does.
func lastOfEach(all []sandbox.Rlimit) (out []sandbox.Rlimit) {
	for i, l := range all {
		if !slices.ContainsFunc(all[i+1:], func(later sandbox.Rlimit) bool { return later.Name == l.Name }) {
			out = append(out, l)
		}
	}
	return out
}

func ulimitNumber(text, number string) (uint64, error) {
	if number == "-1" {
		return sandbox.Unlimited, nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return 0, usagef("--ulimit %s: %s is no number", quote.Text(text), quote.Text(number))
	}
	return uint64(n), nil
}
