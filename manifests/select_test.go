package manifests

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func choiceOf(t *testing.T, text string) Platforms {
	t.Helper()
	if text == "" {
		return Platforms{}
	}
	p, err := ParsePlatforms(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSelect(t *testing.T) {
	local := FormatPlatform(LocalPlatform())
	s := newStore()
	// many returns an index of images for the platforms; "?" before one leaves
	// its platform to the config, and words without a slash are other entries.
	many := func(words ...string) ocispec.Descriptor {
		var children []ocispec.Descriptor
		for i, w := range words {
			platform, ask := strings.CutPrefix(w, "?")
			var d ocispec.Descriptor
			switch {
			case w == "attestation":
				d = s.statement(fmt.Sprint(i))
			case w == "signature":
				d = s.statement(fmt.Sprint(i))
				d.Platform = nil
			case w == "odd":
				d = s.add("application/x-odd", []byte("odd"))
			default:
				d = s.image(platform, "layer of "+platform)
			}
			if ask {
				d.Platform = nil
			}
			children = append(children, d)
		}
		return s.index(children...)
	}
	anywhere := s.parts("linux/amd64", "one")
	anywhere.config.Platform = ocispec.Platform{}
	two := many("linux/amd64", "linux/s390x", "attestation", "signature", "odd")
	for _, c := range []struct {
		what   string
		d      ocispec.Descriptor
		choice string
		state  State
		want   string // platforms of the images taken, or the platforms there are instead
	}{
		{"all", two, "all", Exact, "linux/amd64 linux/s390x"},
		{"one", two, "linux/s390x", PlatformState, "linux/s390x"},
		{"both", two, "linux/s390x,linux/amd64", Exact, "linux/amd64 linux/s390x"},
		{"one, twice", two, "linux/s390x,linux/s390x", PlatformState, "linux/s390x"},
		{"absent", two, "linux/arm64", "", "linux/amd64 linux/s390x"},
		{"one absent of two", two, "linux/amd64,linux/arm64", "", "linux/amd64 linux/s390x"},
		{"the only one", many("linux/s390x", "attestation"), "linux/s390x", Exact, "linux/s390x"},
		{"local", many("linux/none", local), "", PlatformState, local},
		{"local in words", many("linux/none", local), "local", PlatformState, local},
		{"no local", many("linux/none", "linux/nought"), "", "", "linux/none linux/nought"},
		{"no images", many("attestation", "odd"), "", "", ""},
		{"nothing", many(), "linux/amd64", "", ""},
		{"several of more", many("linux/amd64", "linux/386", "linux/s390x"), "linux/s390x,linux/amd64", Rebuilt, "linux/amd64 linux/s390x"},
		{"asked through the config", many("?linux/amd64", "?linux/s390x"), "linux/s390x", PlatformState, "linux/s390x"},
		{"the plain variant", many("linux/amd64/v3", "linux/amd64"), "linux/amd64", PlatformState, "linux/amd64"},
		{"a variant for want of a plain one", many("linux/amd64/v3", "linux/386"), "linux/amd64", PlatformState, "linux/amd64/v3"},
		{"the variant", many("linux/amd64", "linux/amd64/v3"), "linux/amd64/v3", PlatformState, "linux/amd64/v3"},
		{"not another variant", many("linux/amd64", "linux/amd64/v3"), "linux/amd64/v2", "", "linux/amd64 linux/amd64/v3"},
		{"arm is v7", many("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), "linux/arm", PlatformState, "linux/arm/v7"},
		{"arm v6", many("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), "linux/arm/v6", PlatformState, "linux/arm/v6"},
		{"the first of equals", many("windows/amd64", "linux/386", "windows/amd64"), "windows/amd64", PlatformState, "windows/amd64"},
		{"index in index", s.index(two, many("linux/386")), "linux/386", PlatformState, "linux/386"},
		{"all of an index in an index", s.index(two, many("linux/386")), "linux/386,linux/amd64,linux/s390x", Exact, "linux/amd64 linux/s390x linux/386"},
		{"a manifest, all", s.image("linux/s390x"), "all", Exact, "linux/s390x"},
		{"a manifest, by default", s.image("linux/none"), "", Exact, "linux/none"},
		{"a manifest", s.image("linux/s390x"), "linux/s390x", Exact, "linux/s390x"},
		{"a manifest, one of two", s.image("linux/s390x"), "linux/amd64,linux/s390x", Exact, "linux/s390x"},
		{"a manifest of another", s.image("linux/s390x"), "linux/amd64", "", "linux/s390x"},
		{"a manifest of no platform", s.write(anywhere), "linux/amd64", Exact, "unknown/unknown"},
		{"an artifact", s.statement("x"), "linux/amd64", Exact, ""},
	} {
		before := root("x:1", c.d)
		e, err := Select(context.Background(), s, before, choiceOf(t, c.choice))
		if c.state == "" {
			check(t, c.what, err, "not found")
			if missing, ok := err.(*NotFoundError); ok && strings.Join(missing.Have, " ") != c.want {
				t.Errorf("%s: there are %v, want %s", c.what, missing.Have, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		checkSelected(t, c.what, before, e, c.state, c.want)
	}
}

// checkSelected holds an entry to the platforms it should have, and to being
// whole.
func checkSelected(t *testing.T, what string, before Root, e Entry, state State, want string) {
	t.Helper()
	g, err := NewGraph(context.Background(), []Entry{e}, 0)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	var words []string
	for _, img := range g.Images(e.Root) {
		words = append(words, FormatPlatform(img.Platform()))
	}
	if got := strings.Join(words, " "); got != want || e.Root.State() != state {
		t.Errorf("%s: %s, %s, want %s, %s", what, got, e.Root.State(), want, state)
	}
	same := e.Root.Descriptor.Digest == before.Descriptor.Digest
	if same != (state == Exact) {
		t.Errorf("%s: %s, but the digest says otherwise", what, state)
	}
	if state == PlatformState && e.Root.Index != before.Descriptor.Digest {
		t.Errorf("%s: came from %s", what, e.Root.Index)
	}
}

func TestSelectPinned(t *testing.T) {
	s := newStore()
	one := s.image("linux/none")
	x := s.index(one, s.image("linux/nought"), s.image("linux/nil"))
	pinned := root("x:1@"+string(x.Digest), x)
	for _, c := range []struct {
		choice string
		state  State
		want   string
	}{
		{"", Exact, "linux/none linux/nought linux/nil"},
		{"all", Exact, "linux/none linux/nought linux/nil"},
		{"linux/none", PlatformState, "linux/none"},
		{"linux/none,linux/nil", Rebuilt, "linux/none linux/nil"},
	} {
		e, err := Select(context.Background(), s, pinned, choiceOf(t, c.choice))
		if err != nil {
			t.Fatal(c.choice, err)
		}
		checkSelected(t, c.choice, pinned, e, c.state, c.want)
		if e.Root.Name.Digest != e.Root.Descriptor.Digest || e.Root.Name.Tag != "1" {
			t.Errorf("%s: the name is %s, the digest %s", c.choice, e.Root.Name, e.Root.Descriptor.Digest)
		}
	}
	_, err := Select(context.Background(), s, root("x", x), Platforms{})
	check(t, "the same without a pin", err, "not found")
	_, err = Select(context.Background(), s, root("x@"+string(one.Digest), x), Platforms{})
	check(t, "pinned to something else", err, "not found")
}

func TestSelectOne(t *testing.T) {
	local := FormatPlatform(LocalPlatform())
	s := newStore()
	mine, other := s.image(local), s.image("linux/none")
	x := s.index(s.statement("s"), other, mine)
	for _, c := range []struct {
		what, choice string
		r            Root
		want         ocispec.Descriptor
	}{
		{"by default", "", root("x", x), mine},
		{"by name", "linux/none", root("x", x), other},
		{"pinned", "", root("x@"+string(x.Digest), x), mine},
		{"the only one", "", root("x", s.index(mine, s.statement("s"))), mine},
		{"all", "all", root("x", x), mine},
		{"a manifest", "", root("x", other), other},
	} {
		e, err := SelectOne(context.Background(), s, c.r, choiceOf(t, c.choice))
		if err != nil || e.Root.Descriptor.Digest != c.want.Digest {
			t.Errorf("%s: %v, %v", c.what, e.Root, err)
		}
		if d := e.Root.Name.Digest; d != "" && d != c.want.Digest {
			t.Errorf("%s: the name is %s", c.what, e.Root.Name)
		}
	}
	_, err := SelectOne(context.Background(), s, root("x", x), choiceOf(t, "linux/nought"))
	check(t, "absent platform", err, "not found")
	_, err = SelectOne(context.Background(), s, root("x", other), choiceOf(t, "linux/nought"))
	check(t, "a manifest of another", err, "not found")
	_, err = SelectOne(context.Background(), newStore(), root("x", x), Platforms{})
	check(t, "absent index", err, "not found")
}

func TestSelectErrors(t *testing.T) {
	s := newStore()
	broken := s.parts("linux/amd64", "one")
	broken.config.RootFS.DiffIDs = nil
	bad := s.write(broken)
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf("none"), Size: 1}
	deep := s.image("linux/amd64")
	for range maxIndexDepth + 1 {
		deep = s.index(deep)
	}
	for _, c := range []struct {
		what string
		d    ocispec.Descriptor
		want string
	}{
		{"absent manifest", absent, "not found"},
		{"absent index", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digestOf("none"), Size: 1}, "not found"},
		{"absent child", s.index(absent), "not found"},
		{"bad manifest", bad, "malformed"},
		{"bad child", s.index(bad), "malformed"},
		{"bad index", s.add(ocispec.MediaTypeImageIndex, []byte("{}")), "malformed"},
		{"deep index", deep, "limit"},
	} {
		_, err := Select(context.Background(), s, root("x", c.d), choiceOf(t, "linux/amd64"))
		check(t, c.what, err, c.want)
	}
}

func TestRebuiltIndexKeepsPowers(t *testing.T) {
	s := newStore()
	x := s.index(s.image("linux/amd64"), s.image("linux/386"), s.image("linux/arm64"))
	choice := choiceOf(t, "linux/amd64,linux/386")
	e, err := Select(context.Background(), opening{s}, root("x", x), choice)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := e.Source.(LayerOpener); !ok {
		t.Error("the source no longer opens layers")
	}
	again, err := Select(context.Background(), s, root("x", x), choice)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Source.(LayerOpener); ok {
		t.Error("the source opens layers all at once")
	}
	if again.Root.Descriptor.Digest != e.Root.Descriptor.Digest {
		t.Error("rebuilt differently the second time")
	}
	r, err := e.Source.Fetch(context.Background(), e.Root.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
}
