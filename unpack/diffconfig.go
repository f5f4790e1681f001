package unpack

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/imgpack/imgpack/manifests"
)

// ConfigChange is a value in which the configs of two images differ.
type ConfigChange struct {
	Field string // as in the config: "Env", "Cmd", "architecture"
	Key   string // in Env, Labels and other fields that are maps; else empty
	// From and To are strings as they are, and anything else as JSON; nil
	// stands for what is not there. Foreign text.
	From, To *string
}

// DiffConfig returns in what the configs of two images differ that bears on
// how they run: the part called config, and the platform; sorted by field and
// key. When and how they were built is not looked at. What is empty is taken
// as not there.
func DiffConfig(a, b *manifests.Image) ([]ConfigChange, error) {
	from, err := configValues(a)
	if err != nil {
		return nil, err
	}
	to, err := configValues(b)
	if err != nil {
		return nil, err
	}
	keys := maps.Clone(from)
	maps.Copy(keys, to)
	var changes []ConfigChange
	for _, k := range slices.SortedFunc(maps.Keys(keys), configKey.compare) {
		old, had := from[k]
		now, has := to[k]
		if had == has && old == now {
			continue
		}
		c := ConfigChange{Field: k.field, Key: k.key}
		if had {
			c.From = &old
		}
		if has {
			c.To = &now
		}
		changes = append(changes, c)
	}
	return changes, nil
}

type configKey struct{ field, key string }

func (k configKey) compare(other configKey) int {
	if c := strings.Compare(k.field, other.field); c != 0 {
		return c
	}
	return strings.Compare(k.key, other.key)
}

// ofBuild are fields of the container that docker's classic builder made the
// image in.
var ofBuild = []string{"Hostname", "Image"}

// configValues are the values of a config, one for each key of a map.
func configValues(img *manifests.Image) (map[configKey]string, error) {
	var raw struct {
		Config map[string]json.RawMessage `json:"config"`
	}
	subject := "config " + string(img.ID())
	if err := manifests.DecodeJSON(img.RawConfig, subject, &raw); err != nil {
		return nil, err
	}
	values := map[configKey]string{}
	put := func(field, key, value string) { values[configKey{field, key}] = value }
	p := img.Platform()
	for field, value := range map[string]string{"os": p.OS, "architecture": p.Architecture, "variant": p.Variant, "os.version": p.OSVersion} {
		if value != "" {
			put(field, "", value)
		}
	}
	for _, env := range img.Config.Config.Env {
		name, value, _ := strings.Cut(env, "=")
		put("Env", name, value)
	}
	for field, value := range raw.Config {
		if field == "Env" || slices.Contains(ofBuild, field) || emptyJSON(value) {
			continue
		}
		var inner map[string]json.RawMessage
		if value[0] != '{' {
			put(field, "", plainValue(value))
		} else if err := json.Unmarshal(value, &inner); err != nil {
			return nil, manifests.Bad(manifests.KindMalformed, subject, "%w", err)
		}
		for key, v := range inner {
			put(field, key, plainValue(v))
		}
	}
	return values, nil
}

func emptyJSON(v json.RawMessage) bool {
	return slices.Contains([]string{"null", `""`, "[]", "{}", "false", "0"}, string(compact(v)))
}

func compact(v json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}

// plainValue is a string as it is, {} as nothing, and anything else as JSON.
func plainValue(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	if text := string(compact(v)); text != "{}" {
		return text
	}
	return ""
}
