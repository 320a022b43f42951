package references

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

const (
	// Records as Python's ZODB wrote them: class and state.
	blobRecord = "\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
	oneRef     = "\x80\x03cm\nC\nq\x00.\x80\x03}q\x01X\x01\x00\x00\x00aq\x02C\x08\x00\x00\x00\x00\x00\x00\x00\x05q\x03cm\nD\nq\x04\x86q\x05Qs."
)

func TestForms(t *testing.T) {
	const class = "\x80\x03cm\nC\n."
	oid := func(n byte) string { return "C\x08\x00\x00\x00\x00\x00\x00\x00" + string(rune(n)) }
	for _, c := range []struct {
		name, record string
		want         []zeolite.OID
	}{
		{"none", class + "\x80\x03N.", nil},
		{"gone", "", nil},
		{"oid and class", oneRef, []zeolite.OID{5}},
		{"oid", class + "\x80\x03" + oid(7) + "Q.", []zeolite.OID{7}},
		{"oid of Python 2", class + "U\x08\x00\x00\x00\x00\x00\x00\x00\x07Q.", []zeolite.OID{7}},
		{"ASCII text", class + "\x80\x03X\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07Q.", []zeolite.OID{7}},
		{"oid from the memo", class + "\x80\x03(" + oid(7) + "q\x01Qh\x01Q" + oid(9) + "q\x02\x85Qt.", []zeolite.OID{7, 7, 9}},
		{"weak", class + "\x80\x03](U\x01w" + oid(7) + "\x85eQ.", nil},
		{"old weak", class + "\x80\x03]" + oid(7) + "aQ.", nil},
		{"other database", class + "\x80\x03](X\x01\x00\x00\x00nX\x02\x00\x00\x00db" + oid(7) + "\x86eQ.", nil},
		{"other database with class", class + "\x80\x03](X\x01\x00\x00\x00mX\x02\x00\x00\x00db" + oid(7) + "cm\nC\n\x87eQ.", nil},
		{"in the class", "\x80\x03cm\nC\n" + oid(3) + "Q\x85\x86.\x80\x03" + oid(4) + "Q.", []zeolite.OID{3, 4}},
		{"protocol 0", class + "(lp0\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x07'\np1\nQa.", []zeolite.OID{7}},
		{"protocol 0, octal", class + "S'\\0\\0\\0\\0\\0\\0\\0\\012'\nQ.", []zeolite.OID{10}},
		{"tuple with mark", class + "((" + oid(7) + "cm\nC\ntQt.", []zeolite.OID{7}},
		{"bytes of protocol 2", class + "\x80\x02c_codecs\nencode\nX\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc3\xbfX\x06\x00\x00\x00latin1\x86RQ.", []zeolite.OID{255}},
		{"protocol 4", "\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00\x8c\x01m\x8c\x01C\x93.\x80\x04" + oid(7) + "\x94h\x00\x85Q.", []zeolite.OID{7}},
	} {
		got, err := Find(nil, []byte(c.record))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	if got, err := Find([]zeolite.OID{1}, []byte(oneRef)); err != nil || !slices.Equal(got, []zeolite.OID{1, 5}) {
		t.Errorf("appending: got %v, %v", got, err)
	}
}

func TestIsBlob(t *testing.T) {
	for record, want := range map[string]bool{
		blobRecord:  true,
		oneRef:      false,
		"":          false,
		"ZODB.blob": false,
		"\x80\x03cZODB.blob\nBlob\n\x85.\x80\x03N.":            false, // (Blob,)
		"\x80\x03cZODB.blob\nBlobFile\n.\x80\x03N.":            false,
		"\x80\x03cm\nC\n.\x80\x03cZODB.blob\nBlob\n.":          false, // refers to it only
		"\x80\x04\x8c\x09ZODB.blob\x8c\x04Blob\x93.\x80\x04N.": true,
	} {
		if got := IsBlob([]byte(record)); got != want {
			t.Errorf("IsBlob(%q) is %v", record, got)
		}
	}
}

// Every proper prefix is an error: a reference that is missed is an object
// that is lost.
func TestPrefixes(t *testing.T) {
	for _, record := range []string{blobRecord, oneRef} {
		for n := 1; n < len(record); n++ {
			if got, err := Find(nil, []byte(record[:n])); err == nil {
				t.Errorf("%q: no error, but %v", record[:n], got)
			}
		}
	}
}

func TestBadRecords(t *testing.T) {
	const class = "\x80\x03cm\nC\n."
	for _, state := range []string{
		"Q.", "NQ.", ")Q.", "N\x85Q.", "C\x07\x00\x00\x00\x00\x00\x00\x07Q.", "}Q.", "\xff.", "t.", "(Q.", "h\x05.",
		"0.", "2.", "Nr\xff\xff\xff\xff.", "B\xff\xff\xff\xffx.", "\x8e\xff\xff\xff\xff\xff\xff\xff\xffx.", "S'x\n.", "gx\n.", "N",
	} {
		if got, err := Find(nil, []byte(class+state)); err == nil {
			t.Errorf("%q: no error, but %v", state, got)
		}
	}
}

// Junk is an error or not, but never a panic.
func TestJunk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		b := []byte(oneRef)
		for range 1 + rnd.IntN(4) {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
		Find(nil, b)
		IsBlob(b)
	}
}

// TestEncodedAgainAndAgain: a long text that the memo brings again and again is not
// decoded each time.
func TestEncodedAgainAndAgain(t *testing.T) {
	cost := func(times int) float64 {
		record := []byte("Nq\x00.c_codecs\nencode\nq\x000X\x00\x01\x00\x00" + strings.Repeat("x", 256) + "q\x010" +
			strings.Repeat("h\x00h\x01\x85R0", times) + "N.")
		return testing.AllocsPerRun(10, func() {
			if oids, err := Check(nil, record); len(oids) > 0 || err != nil {
				t.Fatal(oids, err)
			}
		})
	}
	// The pool may be emptied at any time.
	if one, many := cost(1), cost(1000); many > one+100 {
		t.Errorf("%v allocations for 1000 calls, %v for one", many, one)
	}
}

func FuzzFind(f *testing.F) {
	f.Add([]byte(blobRecord))
	f.Add([]byte(oneRef))
	f.Fuzz(func(t *testing.T, b []byte) {
		Find(nil, b)
		IsBlob(b)
	})
}

// What Python finds, we find.
func TestPython(t *testing.T) {
	python := os.Getenv("ZEOLITE_TEST_PYTHON")
	if python == "" {
		t.Skip("ZEOLITE_TEST_PYTHON does not name a Python that has ZODB")
	}
	cmd := exec.Command(python, "testdata/records.py")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<24)
	n, refs := 0, 0
	for lines.Scan() {
		var c struct {
			Protocol int
			Record   string
			Refs     []string
			Blob     bool
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		record, _ := base64.StdEncoding.DecodeString(c.Record)
		got, err := Find(nil, record)
		if err != nil {
			t.Fatalf("protocol %d: %v in %q", c.Protocol, err, record)
		}
		n, refs = n+1, refs+len(got)
		if c.Protocol != 3 {
			// ZODB writes protocol 3 only. Of earlier ones, as Python 3
			// writes them, its own function finds no references; later ones
			// it does not know. That we understand them must do.
			continue
		}
		if IsBlob(record) != c.Blob {
			t.Errorf("protocol %d: IsBlob is %v", c.Protocol, !c.Blob)
		}
		texts := []string{}
		for _, oid := range got {
			texts = append(texts, hex.EncodeToString(oid.Bytes()))
		}
		if !slices.Equal(texts, c.Refs) {
			t.Fatalf("protocol %d: got %v, Python %v in %q", c.Protocol, texts, c.Refs, record)
		}
	}
	t.Logf("%d records with %d references", n, refs)
}

func BenchmarkFind(b *testing.B) {
	record := []byte(oneRef)
	var oids []zeolite.OID
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if oids, err = Find(oids[:0], record); err != nil {
			b.Fatal(err)
		}
	}
}
