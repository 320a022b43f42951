package config

import (
	"errors"
	"fmt"
	"math"
	"os/user"
	"path"
	"strconv"
	"strings"
	"time"
)

// A setter converts the text of a value and stores the result. Its error says
// what is accepted; it does not repeat the text.
type setter func(text string) error

// text stores a value as it is.
func text(to *string) setter {
	return func(s string) error {
		*to = s
		return nil
	}
}

// boolean is ZConfig's boolean.
func boolean(to *bool) setter {
	return func(s string) error {
		switch strings.ToLower(s) {
		case "yes", "true", "on":
			*to = true
		case "no", "false", "off":
			*to = false
		default:
			return errors.New("want yes, true, on, no, false or off")
		}
		return nil
	}
}

// integer is ZConfig's integer, and at least low and at most high.
func integer(to *int, low, high int64) setter {
	return func(s string) error {
		n, err := parseInt(s)
		if err != nil {
			return err
		}
		*to = int(n)
		return within(n, low, high)
	}
}

// seconds is an integer number of seconds, at least low.
func seconds(to *time.Duration, low int64) setter {
	return func(s string) error {
		n, err := parseInt(s)
		if err != nil {
			return errors.New("want a whole number of seconds")
		}
		*to = time.Duration(n) * time.Second
		return within(n, low, math.MaxInt32)
	}
}

// floatSeconds is ZConfig's float as a number of seconds, not negative.
func floatSeconds(to *time.Duration) setter {
	return func(s string) error {
		digits, err := dropUnderscores(strings.ToLower(s))
		if err != nil || strings.ContainsAny(digits, "xp") {
			return errors.New("want a number of seconds, such as 3600 or 0.5")
		}
		x, err := strconv.ParseFloat(digits, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return errors.New("want a number of seconds, such as 3600 or 0.5")
		}
		// Written so that NaN fails, too.
		if !(x >= 0 && x <= math.MaxInt32) {
			return strictError(fmt.Sprintf("want 0 to %d seconds", math.MaxInt32))
		}
		*to = time.Duration(x * float64(time.Second))
		return nil
	}
}

// byteSize is ZConfig's byte-size: an integer and KB, MB, GB or nothing. It is
// at least low.
func byteSize(to *int64, low int64) setter {
	return func(s string) error {
		digits, unit := strings.ToLower(s), int64(1)
		for i, suffix := range []string{"kb", "mb", "gb"} {
			if d, ok := strings.CutSuffix(digits, suffix); ok {
				digits, unit = d, 1<<(10*(i+1))
				break
			}
		}
		n, err := parseInt(strings.TrimFunc(digits, isSpace))
		if err != nil {
			return errors.New("want a whole number of bytes, or one followed by KB, MB or GB")
		}
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return strictError("too large")
		}
		*to = n * unit
		return within(*to, low, math.MaxInt64)
	}
}

func within(n, low, high int64) error {
	switch {
	case n < low:
		return strictError(fmt.Sprintf("want at least %d", low))
	case n > high:
		return strictError(fmt.Sprintf("want at most %d", high))
	}
	return nil
}

// parseInt reads an integer in Python's way: a sign, digits, and single
// underscores between them. Numbers beyond int64 give the nearest.
func parseInt(s string) (int64, error) {
	digits, err := dropUnderscores(s)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("want a whole number")
	}
	return n, nil
}

func dropUnderscores(s string) (string, error) {
	for i := range len(s) {
		if s[i] == '_' && (i == 0 || i == len(s)-1 || !isDigit(s[i-1]) || !isDigit(s[i+1])) {
			return "", errors.New("want a whole number")
		}
	}
	return strings.ReplaceAll(s, "_", ""), nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// expandHome replaces ~ or ~user at the start of a path by a home directory,
// as os.path.expanduser does; what it cannot resolve it leaves.
func expandHome(p string, lookupEnv func(string) (string, bool)) string {
	rest, ok := strings.CutPrefix(p, "~")
	if !ok {
		return p
	}
	name, rest, slash := strings.Cut(rest, "/")
	home := ""
	if name == "" {
		home, ok = lookupEnv("HOME")
		if !ok {
			u, err := user.Current()
			if err != nil {
				return p
			}
			home = u.HomeDir
		}
	} else {
		u, err := user.Lookup(name)
		if err != nil {
			return p
		}
		home = u.HomeDir
	}
	home = strings.TrimRight(home, "/")
	if slash {
		return home + "/" + rest
	}
	if home == "" {
		return "/"
	}
	return home
}

// parentDir is what os.path.dirname makes of a path: all before the last
// slash; "" if there is none.
func parentDir(p string) string {
	dir, _ := path.Split(p)
	if trimmed := strings.TrimRight(dir, "/"); trimmed != "" {
		return trimmed
	}
	return dir
}
