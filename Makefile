# imgpack: build, test and measure. `make demo` and `make test` need Go alone.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# The same bytes from any directory and any clock.
GOFLAGS_BUILD = -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION) -X main.commit=$(COMMIT)'
export CGO_ENABLED = 0

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 20s
OUT ?= imgpack

.PHONY: build demo test check integration arm64 fuzz bench soak fixtures man cover clean

# The copy is for its place in the page cache: what the linker wrote lies there in
# single pages, and takes a millisecond longer to start until it is read anew.
build:
	go build $(GOFLAGS_BUILD) -o $(OUT).new ./cmd/imgpack
	@cp $(OUT).new $(OUT).copy && rm $(OUT).new && mv $(OUT).copy $(OUT)

# Pack, verify, load, unpack and run real images, from nothing.
demo: build
	@sh integration/demo.sh ./$(OUT)

test:
	go test ./...

# All that needs no peers: format, vet, staticcheck, race detector (where there
# are goroutines), import rules, documents' examples, a build for arm64,
# reproducible build.
check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./... && go vet -tags integration ./integration/...
	GOFLAGS=-tags=integration go run $(STATICCHECK) ./...
	CGO_ENABLED=1 go test -race -short -timeout 30m $$(go list ./... | grep -v -e /recompress/internal/ -e /internal/deflate$$)
	GOARCH=arm64 go build -o /dev/null ./cmd/imgpack
	@sh integration/reproducible.sh

# The built binary against real registries, engines, runtimes and kernels.
# Missing peers are skipped; IMGPACK_REQUIRE_PEERS=1 makes them a failure.
# IMGPACK_VM=DIR adds kernels of Debian and Ubuntu under systemd: it takes an hour
# or more, and 3 GB in DIR.
integration:
	PATH="$$PATH:$$(go env GOPATH)/bin" go test -tags integration -count=1 -timeout $(if $(IMGPACK_VM),6h,40m) ./integration/...

# What the models of encoders give must be the same on every machine.
arm64:
	@command -v qemu-aarch64-static >/dev/null || { echo "arm64: skipped, there is no qemu-aarch64-static"; exit 0; } && \
	GOARCH=arm64 go test -exec qemu-aarch64-static -short -count=1 -timeout 30m -run 'Golden|Vector' ./internal/recompress/...

fuzz:
	@sh integration/fuzz.sh $(FUZZTIME)

# Ratios to the peers, in one run. CORPUS is an OCI layout directory.
bench:
	PATH="$$PATH:$$(go env GOPATH)/bin" go run ./integration/bench $(if $(CORPUS),-corpus $(CORPUS)) $(BENCHFLAGS)

# What takes long: kill -9 at many points, every blob damaged in turn, memory at
# full size, chance in many rounds, long fuzzing.
soak:
	IMGPACK_SOAK=1 go test -count=1 -timeout 1h ./unpack ./dedupe
	IMGPACK_SOAK=1 PATH="$$PATH:$$(go env GOPATH)/bin" go test -tags integration -count=1 -timeout 3h ./integration/...
	$(MAKE) fuzz FUZZTIME=5m

# Golden files written anew: the commands' documents.
fixtures:
	go test ./cmd/imgpack -run Golden -update

man:
	go run -tags gendocs -ldflags '-X main.version=$(VERSION)' ./cmd/imgpack gen-man dist/man

cover:
	go test -coverprofile=/dev/null ./... -cover | grep -v 'no test files'

clean:
	rm -rf $(OUT) dist _demo
