// Package model says what a model of a deflate encoder is: it plays the encoder
// over content that is known, one token at a time, and is corrected where the
// stream that is to be given back differs.
//
// Models are frozen. What one predicts is part of the format of recipes: it may
// get faster, it may never predict anything else. A better model is a new one,
// with a number of its own.
package model

import "github.com/imgpack/imgpack/internal/deflate"

// What a model may look at around what it plays.
const (
	Prior = 128 << 10 // bytes before it, at most
	Ahead = 1 << 10   // bytes behind it, unless the encoder saw fewer
)

// Input is a run: content that one encoder took without being told to flush in
// between, or a piece of it that begins with a block.
type Input struct {
	// Data is content before the run (at most Prior bytes of it, all if there is
	// less), then that of the run, then at least Ahead bytes that follow it
	// unless End is set. It must not change until the next Begin.
	Data []byte
	// From is where the run begins in Data, and To where it ends.
	From, To int
	// Offset is how much the encoder had taken, since it last began, when it
	// came to Data[0]. What matters of it is where buffers of the encoder were
	// moved. It is 0 if Fresh is set, and less if what is first in Data was to
	// the encoder a preset dictionary.
	Offset int64
	// Fresh tells that the encoder began at From and knew what was before at
	// most as a preset dictionary. Otherwise it had encoded that, and went on;
	// a model may then begin as if it knew only what is in Data, and be corrected.
	Fresh bool
	// End tells that the encoder was told to flush or close at To, which is
	// len(Data).
	End bool
}

// Model plays one encoder. It is used from one goroutine, for many runs, and
// keeps its memory from run to run. The same calls give the same answers on
// every machine, and from whatever state Begin finds the model in.
//
// Calls go: Begin, then for each block Predict and Commit in turn until
// EndOfBlock is committed, then Header. Or Begin in between.
type Model interface {
	Begin(in Input)
	// Predict returns what the encoder would emit next. It returns EndOfBlock at
	// To if End is set, and never a token that reaches beyond To there. Called
	// twice it returns the same.
	Predict() deflate.Token
	// Commit tells what the stream has, which is what Predict returned or
	// anything else that fits the content.
	Commit(t deflate.Token)
	// Header predicts how the block that ended would be written: stored, fixed
	// or dynamic with which trees. Final and Padding are left alone. tokens are
	// those that were committed, content what they stand for, h.Trees is zero.
	Header(h *deflate.Header, tokens []deflate.Token, content []byte)
}

// Runner is a Model that can say several tokens at once, which is faster.
type Runner interface {
	Model
	// Next returns what Predict would return one after the other if all of it was
	// committed, as far as that is known; none before EndOfBlock. It is valid
	// until the next call of another method.
	Next() []deflate.Token
	// Take commits the first n of what Next returned.
	Take(n int)
}

// Worker is a Model that may take many steps for one token.
type Worker interface {
	Model
	// Steps counts the steps of all searches since the model was made.
	Steps() int64
}

// Spec is a model that recipes can name.
type Spec struct {
	ID   uint16 // in recipes
	Name string // for people: encoder, version where it matters, level
	New  func() Model
	// Restarts tells that the encoder begins afresh after each flush, with what
	// was before as a preset dictionary, as programs do that compress blocks side
	// by side. Otherwise it goes on.
	Restarts bool
}
