package manifests_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// baseImage is an image whose config holds what this program does not know.
func baseImage(t testing.TB, docker bool) (*fixtures.Blobs, *manifests.Image) {
	t.Helper()
	b := fixtures.NewBlobs()
	plain, err := manifests.LoadImage(context.Background(), b, b.Image(fixtures.ImageSpec{Docker: docker,
		Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "a", Body: "<a>"}}}},
		Config: ocispec.ImageConfig{Env: []string{"PATH=/bin", "A=one two"}, Cmd: []string{"old"}, WorkingDir: "/srv", Labels: map[string]string{"l": "old"}}}))
	if err != nil {
		t.Fatal(err)
	}
	raw := strings.Replace(string(plain.RawConfig), `"config":{`, `"config":{"Unknown":{"big":12345678901234567890,"html":"<&>"},`, 1)
	raw = strings.Replace(raw, "{", `{"com.example.future":[1.50,null],"author":"Base",`, 1)
	m := plain.Manifest
	m.Config = b.Add(plain.Manifest.Config.MediaType, []byte(raw))
	img, err := manifests.LoadImage(context.Background(), b, b.AddJSON(plain.Descriptor.MediaType, m))
	if err != nil {
		t.Fatal(err)
	}
	return b, img
}

func changes(t testing.TB, texts ...string) (list []manifests.ConfigChange) {
	t.Helper()
	for _, text := range texts {
		c, err := manifests.ParseConfigChange(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func TestDerive(t *testing.T) {
	for _, docker := range []bool{false, true} {
		b, img := baseImage(t, docker)
		blob, id := b.Layer(fixtures.LayerSpec{Files: []fixtures.File{{Name: "b", Body: "b"}}}, docker)
		d := manifests.Derivation{Layer: &manifests.Layer{Blob: blob, DiffID: id}, Created: time.Unix(1700000000, 0), Author: "Me <me@example.com>", CreatedBy: "sh -c 'a && b'", Comment: "why"}
		out, err := img.Derive(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := img.Derive(d); string(again.RawManifest) != string(out.RawManifest) || string(again.RawConfig) != string(out.RawConfig) {
			t.Error("other bytes the second time")
		}
		b.Add(out.Config.MediaType, out.RawConfig)
		b.Add(out.Descriptor.MediaType, out.RawManifest)
		made, err := manifests.LoadImage(context.Background(), b, out.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		if made.Descriptor.MediaType != img.Descriptor.MediaType || made.Manifest.Config.MediaType != img.Manifest.Config.MediaType || len(made.Layers) != 2 || made.Layers[1].DiffID != id {
			t.Errorf("%+v", made.Manifest)
		}
		for _, want := range []string{`"com.example.future":[1.50,null]`, `"big":12345678901234567890`, `"html":"<&>"`, `"author":"Me <me@example.com>"`, `"created":"2023-11-14T22:13:20Z"`, `"created_by":"sh -c 'a && b'"`, `"comment":"why"`} {
			if !strings.Contains(string(made.RawConfig), want) {
				t.Errorf("no %s in %s", want, made.RawConfig)
			}
		}
		if h := made.Config.History; len(h) != 2 || h[1].EmptyLayer {
			t.Errorf("%+v", h)
		}
		empty, err := img.Derive(manifests.Derivation{Created: time.Unix(0, 0)})
		if err != nil || !strings.Contains(string(empty.RawConfig), `"empty_layer":true`) || !strings.Contains(string(empty.RawConfig), `"author":"Base"`) {
			t.Errorf("%v %s", err, empty.RawConfig)
		}
	}
}

func TestConfigChanges(t *testing.T) {
	for _, c := range []struct{ change, want string }{
		{`CMD ["/bin/x", "-v"]`, `"Cmd":["/bin/x","-v"]`}, {`cmd echo "a b" $X`, `"Cmd":["/bin/sh","-c","echo \"a b\" $X"]`}, {`CMD []`, `"Cmd":[]`}, {`CMD [ -f x ]`, `"Cmd":["/bin/sh","-c","[ -f x ]"]`},
		{`ENTRYPOINT ["/e"]`, `"Entrypoint":["/e"]`}, {`ENV PATH=$PATH:/opt/bin`, `"Env":["PATH=/bin:/opt/bin","A=one two"]`}, {`ENV B="x y" C='$A' D=\$A E=${A} F=${NO:-none} G=${A:+some}`, `"A=one two","B=x y","C=$A","D=$A","E=one two","F=none","G=some"]`},
		{`ENV B x  y "z"`, `"B=x  y z"]`}, {`EXPOSE 80 443/udp 8000-8002`, `"ExposedPorts":{"443/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}`},
		{`LABEL a=b "c d"="e f"`, `"Labels":{"a":"b","c d":"e f","l":"old"}`}, {`LABEL l new one`, `"Labels":{"l":"new one"}`}, {`USER 1000:app`, `"User":"1000:app"`}, {`VOLUME ["/a b"]`, `"Volumes":{"/a b":{}}`},
		{`VOLUME /a /b`, `"Volumes":{"/a":{},"/b":{}}`}, {`WORKDIR sub/../dir`, `"WorkingDir":"/srv/dir"`}, {`WORKDIR /x//y/`, `"WorkingDir":"/x/y"`}, {`STOPSIGNAL SIGQUIT`, `"StopSignal":"SIGQUIT"`}, {`STOPSIGNAL 9`, `"StopSignal":"9"`},
		{`ONBUILD RUN make`, `"OnBuild":["RUN make"]`}, {`HEALTHCHECK NONE`, `"Healthcheck":{"Test":["NONE"]}`},
		{`HEALTHCHECK --interval=5s --retries=3 CMD curl localhost`, `"Healthcheck":{"Test":["CMD-SHELL","curl localhost"],"Interval":5000000000,"Retries":3}`},
	} {
		_, img := baseImage(t, false)
		out, err := img.Derive(manifests.Derivation{Changes: changes(t, c.change)})
		if err != nil || !strings.Contains(string(out.RawConfig), c.want) || !json.Valid(out.RawConfig) {
			t.Errorf("%s: %v\n%s\nwant %s", c.change, err, out.RawConfig, c.want)
		}
	}
	for _, bad := range []string{
		"", "RUN x", "CMD", "ENV", "ENV A", "ENV =x", `ENV A="x`, "ENV A=${", "ENV A=${B", "ENV A=${B:-c", "ENV A=${B%c}", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 9-8", "EXPOSE 80/icmp", "EXPOSE x", "USER a b", "VOLUME []", `VOLUME [""]`,
		"STOPSIGNAL 65", "STOPSIGNAL a b", "STOPSIGNAL SIG", "ONBUILD FROM x", "HEALTHCHECK", "HEALTHCHECK x", "HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --no=1 CMD y", "HEALTHCHECK CMD", "CMD a\nUSER b", "LABEL a", "CMD " + strings.Repeat("x", 1<<18),
		"ENV A=" + strings.Repeat("${B:-", 20) + strings.Repeat("}", 20),
	} {
		if _, err := manifests.ParseConfigChange(bad); err == nil {
			t.Errorf("%.60q is taken", bad)
		} else if _, ok := errors.AsType[*manifests.InputError](err); !ok {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
	_, img := baseImage(t, false)
	both, err := img.Derive(manifests.Derivation{Changes: changes(t, `ENTRYPOINT ["/e"]`)})
	if err != nil || strings.Contains(string(both.RawConfig), `"Cmd"`) {
		t.Errorf("the command of another entrypoint is kept: %v %s", err, both.RawConfig)
	}
	both, err = img.Derive(manifests.Derivation{Changes: changes(t, `CMD ["c"]`, `ENTRYPOINT ["/e"]`)})
	if err != nil || !strings.Contains(string(both.RawConfig), `"Cmd":["c"]`) {
		t.Errorf("%v %s", err, both.RawConfig)
	}
	grow := changes(t, "ENV A="+strings.Repeat("x", 1000))
	for range 20 {
		grow = append(grow, changes(t, "ENV A=$A$A$A$A")...)
	}
	if _, err := img.Derive(manifests.Derivation{Changes: grow}); err == nil {
		t.Error("a variable that grows without end is taken")
	}
}

func FuzzConfigChange(f *testing.F) {
	for _, text := range []string{`CMD ["a"]`, `ENV A=${B:-"c d"} E='f'`, `LABEL "a b"=c`, `EXPOSE 1-3/udp`, `HEALTHCHECK --retries=2 CMD x`, `WORKDIR ../x`, `VOLUME ["/a"]`, `STOPSIGNAL TERM`, `ENV a \`} {
		f.Add(text)
	}
	b, img := baseImage(f, false)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := manifests.ParseConfigChange(text)
		if err != nil {
			if _, ok := errors.AsType[*manifests.InputError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		out, err := img.Derive(manifests.Derivation{Changes: []manifests.ConfigChange{c}})
		if err != nil {
			return
		}
		if digest.FromBytes(out.RawConfig) != out.Config.Digest {
			t.Fatal("its digest is another's")
		}
		var config ocispec.Image
		if err := manifests.DecodeJSON(out.RawConfig, "config", &config); err != nil {
			t.Fatalf("%q: %v\n%s", text, err, out.RawConfig)
		}
		_ = b
	})
}
