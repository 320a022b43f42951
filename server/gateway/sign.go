package gateway

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zeolite-go/zeolite"
)

// MinKey is the length in bytes of the shortest key that is accepted.
const MinKey = 32

// Keys are the secrets that URLs are signed with. Every key is accepted, and
// the first one signs, so that a new key can be put in front while URLs signed
// with the old one are about. They are safe for concurrent use.
type Keys struct {
	file string
	keys atomic.Pointer[[][]byte]
}

// NewKeys makes Keys of at least one key.
func NewKeys(keys ...[]byte) (*Keys, error) {
	k := &Keys{}
	return k, k.set(keys)
}

// LoadKeys reads keys from a file of lines. A line is a key, as it stands,
// without the white space around it; empty lines and those that begin with #
// are passed over.
func LoadKeys(file string) (*Keys, error) {
	k := &Keys{file: file}
	return k, k.Reload()
}

// Reload reads the file again. If that fails the keys stay as they were.
func (k *Keys) Reload() error {
	if k.file == "" {
		return nil
	}
	text, err := os.ReadFile(k.file)
	if err != nil {
		return err
	}
	var keys [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			keys = append(keys, line)
		}
	}
	if err := k.set(keys); err != nil {
		return fmt.Errorf("%s: %w", k.file, err)
	}
	return nil
}

func (k *Keys) set(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("there is no key")
	}
	for i, key := range keys {
		if len(key) < MinKey {
			return fmt.Errorf("key %d has %d bytes, which is too short: at least %d are needed", i+1, len(key), MinKey)
		}
	}
	k.keys.Store(&keys)
	return nil
}

// Link is a blob and the right to read it for some time.
type Link struct {
	Storage string
	OID     zeolite.OID
	// TID is zero for the blob of the current revision.
	TID     zeolite.TID
	Expires time.Time
	// Type, if not empty, is the Content-Type, and Filename the name that a
	// browser saves the blob under.
	Type, Filename string
}

// Path returns the path of the blob's URL, without a signature.
func (l Link) Path() string {
	path := fmt.Sprintf("/blobs/%s/%016x", url.PathEscape(l.Storage), uint64(l.OID))
	if l.TID != 0 {
		path += "/" + l.TID.String()
	}
	return path
}

// Sign returns the path and query of a signed URL.
func (k *Keys) Sign(l Link) string {
	query := url.Values{paramExpires: {strconv.FormatInt(l.Expires.Unix(), 10)}}
	if l.Type != "" {
		query.Set(paramType, l.Type)
	}
	if l.Filename != "" {
		query.Set(paramFilename, l.Filename)
	}
	target := l.Path() + "?" + query.Encode()
	return target + signatureMark + hex.EncodeToString(signature((*k.keys.Load())[0], target))
}

func signature(key []byte, target string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(target))
	return mac.Sum(nil)
}

// The query of a signed URL. The signature is its last parameter.
const (
	paramExpires  = "expires"
	paramType     = "type"
	paramFilename = "filename"
	signatureMark = "&signature="
)

// errForbidden says why a request may not have a blob. The text is for the
// client, and says nothing about what there is.
type errForbidden string

func (e errForbidden) Error() string { return string(e) }

// verify checks the signature and the age of a URL, given as path and query in
// the form in which they were sent, and returns what it grants.
func (k *Keys) verify(path, query string, now time.Time) (grant, error) {
	target, given, ok := cutLast(path+"?"+query, signatureMark)
	mac, err := hex.DecodeString(given)
	if !ok || err != nil || len(mac) != sha256.Size {
		return grant{}, errForbidden("the URL is not signed, or its signature is not its last parameter")
	}
	valid := false
	for _, key := range *k.keys.Load() {
		// Each key is tried, whichever fits.
		valid = hmac.Equal(signature(key, target), mac) || valid
	}
	if !valid {
		return grant{}, errForbidden("the signature of the URL is wrong")
	}
	// From here on all is as somebody with the key wrote it.
	_, query, _ = strings.Cut(target, "?")
	g, err := readGrant(query)
	if err != nil {
		return grant{}, err
	}
	if !now.Before(g.expires) {
		return grant{}, errForbidden("the URL has expired")
	}
	return g, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// readGrant reads the signed parameters.
func readGrant(query string) (grant, error) {
	g := grant{private: true}
	params, err := url.ParseQuery(query)
	if err != nil {
		return g, errBadRequest("the query of the URL cannot be read")
	}
	for name, values := range params {
		if len(values) != 1 {
			return g, errBadRequest("a parameter of the URL is given twice")
		}
		switch value := values[0]; name {
		case paramExpires:
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil || seconds <= 0 {
				return g, errBadRequest("expires is not a number of seconds since 1970")
			}
			g.expires = time.Unix(seconds, 0)
		case paramType:
			if !validType(value) {
				return g, errBadRequest("type is not a media type")
			}
			g.contentType = value
		case paramFilename:
			if !validFilename(value) {
				return g, errBadRequest("filename is not a name of 1 to 255 bytes without control characters")
			}
			g.disposition = attachment(value)
		default:
			return g, errBadRequest("the URL has a parameter that is not known")
		}
	}
	if g.expires.IsZero() {
		return g, errBadRequest("the URL does not say when it expires")
	}
	return g, nil
}
