package layertar

// seen is the set of the names of a layer by their hashes, and whether each was a
// directory: eight bytes a name and some room, for there may be millions.
type seen struct {
	slots []uint64 // 0: free; the lowest bit says directory, the next that it is taken
	n     int
}

const (
	seenDir   = 1
	seenTaken = 2
	seenBits  = seenDir | seenTaken
)

// put notes a name, and returns what was known of it.
func (s *seen) put(hash uint64, dir bool) (again, wasDir bool) {
	if s.n >= len(s.slots)/4*3 {
		s.grow()
	}
	at := s.find(hash)
	again, wasDir = s.slots[at] != 0, s.slots[at]&seenDir != 0
	if !again {
		s.n++
	}
	s.slots[at] = hash&^seenBits | seenTaken
	if dir {
		s.slots[at] |= seenDir
	}
	return again, wasDir
}

// find returns the slot of a hash, or the free one where it belongs.
func (s *seen) find(hash uint64) int {
	mask := uint64(len(s.slots) - 1)
	for at := hash >> 32 & mask; ; at = (at + 1) & mask {
		if have := s.slots[at]; have == 0 || have&^seenBits == hash&^seenBits {
			return int(at)
		}
	}
}

func (s *seen) grow() {
	old := s.slots
	s.slots = make([]uint64, max(2*len(old), 64))
	for _, have := range old {
		if have != 0 {
			s.slots[s.find(have)] = have
		}
	}
}
