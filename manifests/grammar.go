package manifests

import "strings"

// The grammar of the distribution specification and docker's reference
// package. It is read by hand: compiled patterns would cost every start of the
// program more than all the names it ever reads. Bounds on length are in
// ParseName.

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlnum(c byte) bool { return isLower(c) || isUpper(c) || isDigit(c) }

// only reports whether s is not empty and all of its bytes are in the set.
func only(s string, set func(byte) bool) bool {
	for i := range len(s) {
		if !set(s[i]) {
			return false
		}
	}
	return s != ""
}

// isRegistry matches a host, or an IP address in brackets, with an optional
// port.
func isRegistry(s string) bool {
	if strings.HasPrefix(s, "[") {
		address, rest, ok := strings.Cut(s[1:], "]")
		hexOrColon := func(c byte) bool { return isDigit(c) || c == ':' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
		return ok && only(address, hexOrColon) && (rest == "" || rest[0] == ':' && isPort(rest[1:]))
	}
	host, port, ok := strings.Cut(s, ":")
	if ok && !isPort(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !only(label, func(c byte) bool { return isAlnum(c) || c == '-' }) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

func isPort(s string) bool { return len(s) <= 5 && only(s, isDigit) }

// isRepository matches components of lower-case letters and digits, with a
// single '.', one or two '_' or any number of '-' between them.
func isRepository(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	word := func(c byte) bool { return isLower(c) || isDigit(c) }
	for {
		n := 0
		for n < len(s) && word(s[n]) {
			n++
		}
		if n == 0 || n == len(s) {
			return n > 0
		}
		s = s[n:]
		n = 0
		for n < len(s) && !word(s[n]) {
			n++
		}
		switch sep := s[:n]; {
		case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
		default:
			return false
		}
		s = s[n:]
	}
}

func isTag(s string) bool {
	const maxTag = 128
	if len(s) > maxTag || !only(s, func(c byte) bool { return isAlnum(c) || c == '_' || c == '.' || c == '-' }) {
		return false
	}
	return s[0] != '.' && s[0] != '-'
}

func isHexID(s string) bool {
	const length = 64
	return len(s) == length && only(s, func(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' })
}
