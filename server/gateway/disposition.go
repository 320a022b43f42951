package gateway

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// validType tells whether s is a media type that can be sent as it stands.
func validType(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	mediaType, _, err := mime.ParseMediaType(s)
	kind, sub, slash := strings.Cut(mediaType, "/")
	return err == nil && slash && kind != "" && sub != ""
}

// validFilename tells whether s can be told to a browser as a file name.
func validFilename(s string) bool {
	return s != "" && len(s) <= 255 && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// attachment makes a Content-Disposition (RFC 6266): the name in ASCII for
// everybody, and in UTF-8 as RFC 8187 encodes it if that says more.
func attachment(name string) string {
	// It must be the name of a file, not a way to one.
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	var plain strings.Builder
	exact := true
	for _, r := range name {
		switch {
		case r == '"' || r == '%' || r > '~':
			// Quotes and percent signs are legal in a quoted string, but
			// browsers do not agree on what they mean there.
			plain.WriteByte('_')
			exact = false
		default:
			plain.WriteRune(r)
		}
	}
	value := `attachment; filename="` + plain.String() + `"`
	if !exact {
		value += "; filename*=UTF-8''" + percentEncode(name)
	}
	return value
}

// percentEncode leaves the attr-char of RFC 8187 as they are.
func percentEncode(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}
