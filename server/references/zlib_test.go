package references

import (
	"bytes"
	"compress/zlib"
	"slices"
	"strings"
	"testing"

	"github.com/zeolite-go/zeolite"
)

func deflated(record string) []byte {
	var b bytes.Buffer
	b.WriteString(".z")
	z := zlib.NewWriter(&b)
	z.Write([]byte(record))
	z.Close()
	return b.Bytes()
}

// What clients compressed is read as it was before.
func TestCompressed(t *testing.T) {
	long := "\x80\x03cm\nC\n.\x80\x03}X\x01\x00\x00\x00a" + "X\x28\x00\x00\x00" + strings.Repeat("x", 40) + "s."
	for _, record := range []string{oneRef, blobRecord, long, long + strings.Repeat("N", 3*blobInflated)} {
		for range 2 { // with a reader that was used before, too
			want, wantErr := Check(nil, []byte(record))
			got, err := Check(nil, deflated(record))
			if (err == nil) != (wantErr == nil) || !slices.Equal(got, want) {
				t.Errorf("Check: got %v, %v, want %v, %v", got, err, want, wantErr)
			}
			want, _ = Find(nil, []byte(record))
			if got, err := Find([]zeolite.OID{9}, deflated(record)); err != nil || !slices.Equal(got, append([]zeolite.OID{9}, want...)) {
				t.Errorf("Find: got %v, %v, want %v", got, err, want)
			}
			if got, want := IsBlob(deflated(record)), IsBlob([]byte(record)); got != want {
				t.Errorf("IsBlob is %v of %q", got, record)
			}
		}
	}
}

func TestCompressedBadly(t *testing.T) {
	whole := deflated(oneRef)
	damaged := slices.Clone(whole)
	damaged[len(damaged)-1]++ // the checksum
	for _, record := range [][]byte{whole[:2], whole[:4], whole[:len(whole)-1], damaged, deflated(""), deflated("junk"), []byte(".zjunk")} {
		if got, err := Find(nil, record); err == nil {
			t.Errorf("Find(%q): got %v", record, got)
		}
		if got, err := Check(nil, record); err == nil {
			t.Errorf("Check(%q): got %v", record, got)
		}
		if IsBlob(record) {
			t.Errorf("%q is a blob", record)
		}
	}

	defer func(n int64) { maxInflated = n }(maxInflated)
	maxInflated = int64(len(oneRef))
	if _, err := Find(nil, whole); err != nil {
		t.Errorf("as large as can be: %v", err)
	}
	maxInflated--
	if _, err := Find(nil, whole); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too large: got error %v", err)
	}
}
