package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// operations are what is measured; in each, imgpack comes first. A peer that
// is not installed is reported absent.
func (b *bench) operations() []operation {
	each := filepath.Join(b.dir, "each")
	empty := filepath.Join(b.dir, "empty")
	clear := "rm -rf " + empty + "/*"
	return []operation{
		{name: "save layout to one tar", contenders: []contender{
			{"imgpack save", b.bin, "", `$IMGPACK -q save -o $OUT oci:$CORPUS`},
			{"tar", "tar", "", `tar -C $CORPUS -cf $OUT .`},
		}},
		{name: "pack from a registry", contenders: []contender{
			{"imgpack pack", b.bin, "", `$IMGPACK -q pack -o $OUT $IMAGES`},
			{"crane pull (docker tar)", "crane", "", `crane pull --insecure $IMAGES $OUT`},
			{"crane pull (layout)", "crane", "", `crane pull --insecure --format=oci $IMAGES $OUT`},
			{"skopeo copy (layout)", "skopeo", "", `for i in $IMAGES; do skopeo --policy $POLICY copy -q --preserve-digests --src-tls-verify=false docker://$i oci:$OUT:$(basename $i) || exit 1; done`},
			{"regctl image copy (layout)", "regctl", `regctl registry set --tls disabled $REG >/dev/null 2>&1`, `for i in $IMAGES; do regctl image copy $i ocidir://$OUT:$(basename $i | tr : -) || exit 1; done`},
			{"imgpkg copy --to-tar", "imgpkg", imgpkgLock, imgpkgCopy},
			{"hauler store save", "hauler", "", haulerSave},
		}},
		{name: "verify every blob", contenders: []contender{
			{"imgpack verify", b.bin, "", `$IMGPACK -q verify oci:$CORPUS`},
			{"openssl dgst, all CPUs", "openssl", "", `cd $CORPUS/blobs/sha256 && ls -S | xargs -P $CPUS -n 1 openssl dgst -sha256 >/dev/null`},
			{"sha256sum, all CPUs", "sha256sum", "", `cd $CORPUS/blobs/sha256 && ls -S | xargs -P $CPUS -n 1 sha256sum >/dev/null`},
		}},
		{name: "push to an empty registry", contenders: []contender{
			{"imgpack push", b.bin, clear, `$IMGPACK -q push --map strip oci:$CORPUS $EMPTY`},
			{"crane push", "crane", clear, `for d in ` + each + `/*; do crane push --insecure $d $EMPTY/$(cat $d/name) >/dev/null || exit 1; done`},
		}},
		{name: "load into an empty store", contenders: []contender{
			{"imgpack load", b.bin, "rm -rf $IMGPACK_STORE", `$IMGPACK -q load oci:$CORPUS`},
			{"cp -r of the layout, and sync", "cp", "", `cp -r $CORPUS $OUT && sync -f $OUT`},
		}},
	}
}

// splitLayout makes a layout of its own for each image, over the same blobs,
// for tools that push one image at a time.
func (b *bench) splitLayout() error {
	raw, err := os.ReadFile(filepath.Join(b.corpus, "index.json"))
	if err != nil {
		return err
	}
	var index struct {
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return err
	}
	for i, m := range index.Manifests {
		var desc struct {
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(m, &desc); err != nil {
			return err
		}
		one := index
		one.Manifests = []json.RawMessage{m}
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		dir := filepath.Join(b.dir, "each", fmt.Sprintf("%03d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for name, content := range map[string]string{"index.json": string(text), "oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
			"name": repositoryAndTag(desc.Annotations)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				return err
			}
		}
		if err := os.Symlink(filepath.Join(b.corpus, "blobs"), filepath.Join(dir, "blobs")); err != nil {
			return err
		}
	}
	return nil
}

func repositoryAndTag(annotations map[string]string) string {
	if full := annotations["io.containerd.image.name"]; full != "" {
		return filepath.Base(full)
	}
	return filepath.Base(annotations["org.opencontainers.image.ref.name"])
}
