// Package recompress gives back compressed streams from what they unpack to.
//
// Find takes a gzip or zstd stream apart and writes down as a recipe how it
// differs from what a model of the likely encoder would have made of the same
// content; Restore plays the model again and gives the stream, byte for byte.
// Any gzip stream has a recipe; that of a known encoder is a few bytes long.
package recompress

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/imgpack/imgpack/internal/recompress/internal/kpzstd"
)

// MaxRecipe bounds the length of a recipe.
const MaxRecipe = 64 << 20

var (
	// ErrFormat is a stream that is damaged, or neither gzip nor zstd.
	ErrFormat = errors.New("neither a gzip nor a zstd stream")
	// ErrHopeless is a stream whose recipe is not worth its length.
	ErrHopeless = errors.New("no model is close to what made the stream")
	// ErrRecipe is a recipe that is damaged, or is not for this content.
	ErrRecipe = errors.New("invalid recipe")
	// ErrUnknown is a recipe of a later version, or of a model that this one
	// does not have. It is no ErrRecipe.
	ErrUnknown = errors.New("the recipe is for a model that is not known")
)

// Options of Find and Restore. The zero value works.
type Options struct {
	Jobs int // parts worked on at once; 0 is one for each processor
	// Spend is how long a recipe may get, as a part of the stream: Find ends
	// with ErrHopeless if it gets longer than 1/Spend of it. 0 is 10, and
	// less than 0 however long.
	Spend int
	// Slots, if not nil, bounds the parts worked on at once by all calls that
	// share it: one is taken (by a send) for the time that a part is computed,
	// and never while a call waits for its reader or writer.
	Slots chan struct{}
}

// Info says what Find found.
type Info struct {
	Model   string // of the encoder, for people; of most of the content if there are several
	Stream  int64  // bytes of the stream
	Content int64  // bytes of what it unpacks to
	Recipe  int    // bytes of the recipe
}

// Find reads a stream to its end and returns its recipe. What the stream unpacks
// to is written to content, in order, from another goroutine; content may be
// nil. Where content goes to is proven to nobody: the caller hashes.
// Errors are those of stream, of content and of ctx, ErrFormat and ErrHopeless;
// with ErrHopeless the stream may not be read to its end. All goroutines have
// ended when Find returns, so a call of stream or content that hangs makes Find
// hang, whatever becomes of ctx.
func Find(ctx context.Context, stream io.Reader, content io.Writer, o Options) ([]byte, Info, error) {
	in := bufio.NewReaderSize(stream, 64<<10)
	magic, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, Info{}, err
	}
	if isZstd(magic) {
		return findZstd(ctx, in, content, o)
	}
	return findDeflate(ctx, in, content, o)
}

// isZstd tells a zstd frame, or a skippable one (RFC 8878, section 3.1).
func isZstd(magic []byte) bool {
	if len(magic) < 4 {
		return false
	}
	m := binary.LittleEndian.Uint32(magic)
	return m == 0xfd2fb528 || m&^15 == 0x184d2a50
}

// Restore writes the stream to w that the recipe was found for, reading content
// to its end, which must be where the recipe says. size is the length of the
// stream. Recipes are not trusted: whatever one says, memory is bounded, no more
// than size bytes are written, and the error is ErrRecipe. Whether they are the
// right ones, the caller proves by their digest. As with Find, all goroutines
// have ended when it returns.
func Restore(ctx context.Context, w io.Writer, content io.Reader, recipe []byte, size int64, o Options) error {
	switch {
	case len(recipe) == 0 || len(recipe) > MaxRecipe:
		return errRecipe("it has %d bytes", len(recipe))
	case recipe[0] == recipeDeflate:
		return restoreDeflate(ctx, w, content, recipe[1:], size, o)
	case recipe[0] == recipeZstd:
		return restoreZstd(ctx, w, content, recipe[1:], size)
	}
	return fmt.Errorf("%w: kind %d", ErrUnknown, recipe[0])
}

// ModelOf returns the name of the model of most of what a recipe gives; "" if
// the recipe is damaged, or the model is not known.
func ModelOf(recipe []byte) string {
	if len(recipe) == 0 {
		return ""
	}
	if recipe[0] == recipeZstd {
		return kpzstd.ModelOf(recipe[1:])
	}
	names := make(map[string]int64)
	var r record
	for recipe = recipe[1:]; len(recipe) > 0; names[known()[r.model].Name] += int64(r.content) {
		var err error
		if recipe, err = r.take(recipe); err != nil {
			return ""
		}
	}
	return most(names)
}
