package recompress

// Revision grows whenever Find may give another recipe for a stream than it did
// before. Who keeps recipes, and wants what Find would give, keeps it beside
// them. Restore takes those of all revisions.
const Revision = 3
