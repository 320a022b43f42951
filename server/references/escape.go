package references

import (
	"strconv"
	"unicode/utf8"
)

// simpleEscapes are the escapes of one character in a Python literal.
var simpleEscapes = map[byte]byte{
	'\\': '\\', '\'': '\'', '"': '"', 'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// unescape resolves the escapes of a Python 2 string literal; or, if text is
// set, those of a raw unicode literal (\uxxxx and \Uxxxxxxxx, the rest being
// Latin-1), to UTF-8.
func unescape(b []byte, text bool) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '\\' || i+1 == len(b) {
			if text {
				out = utf8.AppendRune(out, rune(c))
			} else {
				out = append(out, c)
			}
			continue
		}
		next := b[i+1]
		switch digits := map[byte]int{'u': 4, 'U': 8, 'x': 2}[next]; {
		case digits > 0 && text == (next != 'x') && i+2+digits <= len(b):
			n, err := strconv.ParseUint(string(b[i+2:i+2+digits]), 16, 32)
			if err != nil {
				out = append(out, c)
				continue
			}
			if text {
				out = utf8.AppendRune(out, rune(n))
			} else {
				out = append(out, byte(n))
			}
			i += 1 + digits
		case !text && next >= '0' && next <= '7':
			end := i + 2
			for end < len(b) && end < i+4 && b[end] >= '0' && b[end] <= '7' {
				end++
			}
			n, _ := strconv.ParseUint(string(b[i+1:end]), 8, 16) // digits only
			out = append(out, byte(n))
			i = end - 1
		case !text && simpleEscapes[next] != 0:
			out = append(out, simpleEscapes[next])
			i++
		default:
			out = append(out, c)
		}
	}
	return out
}
