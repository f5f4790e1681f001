package main

import (
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/unpack"
)

// idMapFlags map the ids of an image to ids here.
type idMapFlags struct{ uids, gids []string }

func (f *idMapFlags) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.uids, "uid-map", nil, "the image's users from INSIDE on are those from OUTSIDE on here: `INSIDE:OUTSIDE:SIZE` (repeatable; root only)")
	fs.StringArrayVar(&f.gids, "gid-map", nil, "the same for groups: `INSIDE:OUTSIDE:SIZE` (default: as --uid-map)")
}

// parse reads the flags. The one that is not given is as the other.
func (f *idMapFlags) parse() (ids unpack.IDs, err error) {
	if ids.UIDs, err = unpack.ParseIDMaps(f.uids); err != nil {
		return ids, err
	}
	if ids.GIDs, err = unpack.ParseIDMaps(f.gids); err != nil {
		return ids, err
	}
	if len(ids.UIDs) == 0 {
		ids.UIDs = ids.GIDs
	} else if len(ids.GIDs) == 0 {
		ids.GIDs = ids.UIDs
	}
	return ids, nil
}

// namespaceIDs are the ids of the user namespace that the program started
// itself again in.
func (a *app) namespaceIDs() (ids unpack.IDs) {
	if a.namespace == nil {
		return ids
	}
	for _, r := range a.namespace.Maps.UIDs {
		ids.UIDs = append(ids.UIDs, unpack.IDMap{Inside: r.Inside, Outside: r.Outside, Size: r.Count})
	}
	for _, r := range a.namespace.Maps.GIDs {
		ids.GIDs = append(ids.GIDs, unpack.IDMap{Inside: r.Inside, Outside: r.Outside, Size: r.Count})
	}
	return ids
}
