package faults

import (
	"encoding/binary"
	"errors"
)

var errNoName = errors.New("not a message with a name")

// Name returns the method name of a message payload in either encoding:
// "vote", ".reply". It understands what ZEO peers really send and no more.
func Name(payload []byte) (string, error) {
	if len(payload) > 3 && payload[0] == 0x80 {
		return pickleName(payload[2:])
	}
	if len(payload) > 3 && payload[0] == 0x94 {
		return msgpackName(payload[1:])
	}
	return "", errNoName
}

// pickleName returns the first text of a pickle: id and flag, which come
// before the name, hold numbers, booleans and bytes only.
func pickleName(p []byte) (string, error) {
	for len(p) > 0 {
		op := p[0]
		p = p[1:]
		skip := 0
		switch op {
		case '(', 't', ')', 0x85, 0x86, 0x87, 0x88, 0x89, 'N':
		case 'K', 'q':
			skip = 1
		case 'M':
			skip = 2
		case 'J', 'r':
			skip = 4
		case 'C', 0x8a:
			if len(p) == 0 {
				return "", errNoName
			}
			skip = 1 + int(p[0])
		case 'X':
			if len(p) < 4 {
				return "", errNoName
			}
			n := uint64(binary.LittleEndian.Uint32(p))
			if uint64(len(p)-4) < n {
				return "", errNoName
			}
			return string(p[4 : 4+n]), nil
		default:
			return "", errNoName
		}
		if len(p) < skip {
			return "", errNoName
		}
		p = p[skip:]
	}
	return "", errNoName
}

// msgpackName skips the id and the flag and returns the text behind them.
func msgpackName(p []byte) (string, error) {
	for skip := 2; skip > 0; skip-- {
		if len(p) == 0 {
			return "", errNoName
		}
		c := p[0]
		n := 1
		switch {
		case c <= 0x7f || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3: // small int, nil, bool
		case c >= 0x90 && c <= 0x9f: // the elements of an array follow
			skip += int(c & 0x0f)
		case c == 0xc4: // bin8
			if len(p) < 2 {
				return "", errNoName
			}
			n = 2 + int(p[1])
		case c == 0xcc || c == 0xd0:
			n = 2
		case c == 0xcd || c == 0xd1:
			n = 3
		case c == 0xce || c == 0xd2:
			n = 5
		case c == 0xcf || c == 0xd3:
			n = 9
		default:
			return "", errNoName
		}
		if len(p) < n {
			return "", errNoName
		}
		p = p[n:]
	}
	if len(p) == 0 {
		return "", errNoName
	}
	head, n := 1, int(p[0]&0x1f)
	switch {
	case p[0]&0xe0 == 0xa0: // fixstr
	case p[0] == 0xd9 && len(p) > 1: // str8
		head, n = 2, int(p[1])
	default:
		return "", errNoName
	}
	if len(p) < head+n {
		return "", errNoName
	}
	return string(p[head : head+n]), nil
}
