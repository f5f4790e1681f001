package kpzstd

// ModelOf returns the name of the encoder that a recipe names first; "" if it
// names none that is known.
func ModelOf(recipe []byte) string {
	for len(recipe) > 0 {
		v, rest, ok := cutUvarint(recipe)
		n := v >> 2
		if !ok || v&3 != opFrame && n > uint64(len(rest)) {
			return ""
		}
		switch recipe = rest; v & 3 {
		case opRaw:
			recipe = rest[n:]
		case opParams:
			p, err := ParseParams(rest[:n])
			if err != nil {
				return ""
			}
			return p.String()
		default:
			return ""
		}
	}
	return ""
}
