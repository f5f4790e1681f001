package unpack

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/imgpack/imgpack/manifests"
)

// IDMap is a range of ids: Size ids of an image from Inside on are those from
// Outside on here.
type IDMap struct{ Inside, Outside, Size uint32 }

// IDs maps the owners of an image to owners here, for root. The zero value
// leaves them as they are.
type IDs struct{ UIDs, GIDs []IDMap }

// maxExtents is how many ranges the kernel takes for one user namespace.
const maxExtents = 340

// ParseIDMaps reads ranges as C:H:N and checks them as the kernel would: none
// is empty or passes 2³²-2, and none overlaps another on either side. What is
// wrong is a *manifests.InputError.
func ParseIDMaps(texts []string) ([]IDMap, error) {
	var maps []IDMap
	for _, text := range texts {
		m, err := parseIDMap(text)
		if err != nil {
			return nil, err
		}
		maps = append(maps, m)
		if overlap(maps, insideOf) || overlap(maps, outsideOf) {
			return nil, &manifests.InputError{What: "id map", Input: text, Why: "another range has some of its ids too"}
		}
	}
	if len(maps) > maxExtents {
		return nil, &manifests.InputError{What: "id map", Input: texts[maxExtents], Why: fmt.Sprintf("there are more than %d ranges", maxExtents)}
	}
	return maps, nil
}

func insideOf(m IDMap) uint32  { return m.Inside }
func outsideOf(m IDMap) uint32 { return m.Outside }

func parseIDMap(text string) (m IDMap, err error) {
	parts := strings.Split(text, ":")
	fields := []*uint32{&m.Inside, &m.Outside, &m.Size}
	bad := func(why string) (IDMap, error) {
		return m, &manifests.InputError{What: "id map", Input: text, Why: why}
	}
	if len(parts) != len(fields) {
		return bad("it should be INSIDE:OUTSIDE:SIZE")
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return bad("it should be three numbers below 2³²")
		}
		*fields[i] = uint32(n)
	}
	// 2³²-1 is no id but the kernel's "none".
	if end := uint64(1<<32 - 1); m.Size == 0 || uint64(m.Inside)+uint64(m.Size) > end || uint64(m.Outside)+uint64(m.Size) > end {
		return bad("its ids end past 2³²-2, or it is empty")
	}
	return m, nil
}

// overlap reports whether two ranges have ids in common on one side.
func overlap(maps []IDMap, side func(IDMap) uint32) bool {
	sorted := slices.SortedFunc(slices.Values(maps), func(a, b IDMap) int { return cmp.Compare(side(a), side(b)) })
	for i := 1; i < len(sorted); i++ {
		if side(sorted[i-1])+sorted[i-1].Size > side(sorted[i]) {
			return true
		}
	}
	return false
}

func (ids *IDs) isZero() bool { return len(ids.UIDs)+len(ids.GIDs) == 0 }

// check tells whether the caller may use the map.
func (ids *IDs) check() error {
	switch {
	case ids.isZero():
		return nil
	case len(ids.UIDs) == 0 || len(ids.GIDs) == 0:
		return &manifests.InputError{What: "id map", Input: "", Why: "users and groups are mapped together or not at all"}
	case os.Geteuid() != 0:
		return &manifests.UnsupportedError{Subject: "an id map", Reason: "root alone can give files to others"}
	}
	for _, maps := range [][]IDMap{ids.UIDs, ids.GIDs} {
		if _, ok := mapped(maps, 0); !ok {
			return &manifests.InputError{What: "id map", Input: maps[0].String(), Why: "no range has id 0, which owns what no layer gives to anybody"}
		}
	}
	return nil
}

// String is the range as ParseIDMaps reads it.
func (m IDMap) String() string { return fmt.Sprintf("%d:%d:%d", m.Inside, m.Outside, m.Size) }

func mapped(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.Inside && id-m.Inside < m.Size {
			return m.Outside + (id - m.Inside), true
		}
	}
	return 0, false
}

// unmapped is mapped the other way, for an id that is somewhere in the map.
func unmapped(maps []IDMap, id uint32) uint32 {
	for _, m := range maps {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + (id - m.Outside)
		}
	}
	return 0
}

// outside maps an owner. One that the map does not have is an *UnmappedError.
func (ids *IDs) outside(uid, gid uint32) (uint32, uint32, error) {
	if ids.isZero() {
		return uid, gid, nil
	}
	u, ok := mapped(ids.UIDs, uid)
	if !ok {
		return 0, 0, &UnmappedError{"user", uid}
	}
	g, ok := mapped(ids.GIDs, gid)
	if !ok {
		return 0, 0, &UnmappedError{"group", gid}
	}
	return u, g, nil
}

// UnmappedError reports an owner that Options.IDs has no place for.
type UnmappedError struct {
	What string // "user" or "group"
	ID   uint32
}

func (e *UnmappedError) Error() string {
	return fmt.Sprintf("its %s %d is not in the id map", e.What, e.ID)
}
