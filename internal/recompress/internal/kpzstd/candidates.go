package kpzstd

// candidate is parameters that the beginning of a frame allows. Of the classes
// in set, it is not known which.
type candidate struct {
	Params
	set     classSet
	several bool // the frame has several blocks
}

func classes(from, to Class) classSet { return 1<<(to+1) - 1<<from }

// groups are the classes that take blocks apart in the same way, by level, likely
// ones first.
var groups = []struct {
	level Level
	set   classSet
	log   uint8 // of the window
}{
	{Default, classes(V1_14, V1_203), 23},
	{Fastest, classes(V1_14, V1_203), 22},
	{Better, classes(V1_178, V1_203), 23},
	{Best, classes(V1_178, V1_203), 23},
	{Better, classes(V1_175, V1_175), 23},
	{Best, classes(V1_175, V1_175), 23},
	{Better, classes(V1_15, V1_17), 24},
	{Better, classes(V1_173, V1_173), 24},
	{Better, classes(V1_14, V1_14), 24},
	{Default, classes(V1_11, V1_11), 23},
	{Fastest, classes(V1_11, V1_11), 22},
	{Better, classes(V1_11, V1_11), 24},
}

// candidates reads the beginning of a frame.
func candidates(head []byte) []candidate {
	h, more, bad := parseFrameHeader(head)
	if more || bad || h.dict || h.skip > 0 {
		return nil
	}
	blocks := head[h.length:]
	p := Params{Checksum: h.checksum}
	one := len(blocks) > 0 && blocks[0]&1 != 0
	if !one {
		if h.single || h.windowLog == 0 || h.windowLog > maxWindowLog {
			return nil
		}
		p.Size = h.size
	}
	var list []candidate
	for _, g := range groups {
		// A short content makes the window of the header small, not the encoder's.
		if !one && h.windowLog != g.log && !(h.sized && h.windowLog < g.log) {
			continue
		}
		p.Level, p.Class, p.WindowLog, p.Cuts = g.level, g.set.highest(), g.log, nil
		if !one {
			p.Cuts = cuts(blocks, p.blockSize())
		}
		list = append(list, candidate{p, g.set, !one})
	}
	return list
}

// cuts reads the raw blocks at the beginning that are shorter than a block.
func cuts(b []byte, size int) (list []uint32) {
	for len(b) >= 3 && len(list) < maxCuts {
		v := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		n := v >> 3
		if v&7 != blockRaw<<1 || n == 0 || n >= size || len(b) < 3+n {
			break
		}
		list = append(list, uint32(n))
		b = b[3+n:]
	}
	return list
}
