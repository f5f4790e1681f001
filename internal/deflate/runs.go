package deflate

// Symbols of the code for code lengths that stand for several lengths.
const (
	Repeat    = 16 // the length before, 3 to 6 times
	Zeros     = 17 // 3 to 10
	ManyZeros = 18 // 11 to 138
)

// AddRun appends a symbol to Runs, with the extra bits it is followed by.
func (t *Trees) AddRun(symbol uint8, extra int) {
	t.Runs[t.NumRuns] = uint16(symbol) | uint16(extra)<<8
	t.NumRuns++
}

// AddLongestRuns appends lengths to Runs, each run in pieces as long as can be,
// as Go's encoders do.
func (t *Trees) AddLongestRuns(lengths []uint8) {
	for len(lengths) > 0 {
		l, n := lengths[0], 1
		for n < len(lengths) && lengths[n] == l {
			n++
		}
		lengths = lengths[n:]
		if l != 0 {
			t.AddRun(l, 0)
			for n--; n >= 3; n -= min(n, 6) {
				t.AddRun(Repeat, min(n, 6)-3)
			}
		} else {
			for ; n >= 11; n -= min(n, 138) {
				t.AddRun(ManyZeros, min(n, 138)-11)
			}
			if n >= 3 {
				t.AddRun(Zeros, n-3)
				n = 0
			}
		}
		for ; n > 0; n-- {
			t.AddRun(l, 0)
		}
	}
}

// CutCode sets NumCode to what holds all of Code that is used, 4 at least.
func (t *Trees) CutCode() {
	for t.NumCode = NumCode; t.NumCode > 4 && t.Code[codeOrder[t.NumCode-1]] == 0; {
		t.NumCode--
	}
}
