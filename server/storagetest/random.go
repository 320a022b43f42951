package storagetest

import (
	"math/rand/v2"
	"os"
	"strconv"

	"github.com/zeolite-go/zeolite"
)

var randomTests = []test{
	{"History", func(e *env) { testRandom(e, 1, false, false) }},
	{"HistoryGivenTIDs", func(e *env) { testRandom(e, 2, true, false) }},
	{"HistoryPacked", func(e *env) { testRandom(e, 3, true, true) }},
	{"HistoryAnySeed", func(e *env) { testRandom(e, anySeed(e), true, true) }},
}

// anySeed returns a seed that is different each time, unless STORAGETEST_SEED
// is set to repeat a run.
func anySeed(e *env) uint64 {
	if text := os.Getenv("STORAGETEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		e.must(err)
		return seed
	}
	return rand.Uint64()
}

// testRandom compares a random history with the model, several times on the
// way.
func testRandom(e *env, seed uint64, given, pack bool) {
	e.Logf("seed %d (STORAGETEST_SEED sets that of HistoryAnySeed)", seed)
	if pack {
		e.needPack()
	}
	h := newHistory(e, seed)
	h.given = given
	for range 4 {
		for range 12 {
			h.step()
		}
		h.check()
		if pack {
			h.pack()
			h.check()
		}
		if e.Failed() {
			return
		}
	}
	e.reopen()
	h.check()
	for range 12 {
		h.step()
	}
	h.check()
}

func (e *env) needPack() {
	e.Helper()
	e.need("pack", e.s.Info().Pack)
	if _, ok := e.s.(zeolite.Packer); !ok {
		e.Fatal("Info says that pack works, but the storage is no zeolite.Packer")
	}
}
