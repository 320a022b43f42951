package config

import (
	"strings"
	"testing"
)

// A section may have a number for its name, also where runzeo takes no numbers.
func TestOverrideOfNumber(t *testing.T) {
	const text = "<zeo>\n address 1\n</zeo>\n<filestorage 1>\n path a\n</filestorage>\n<filestorage 2>\n path b\n</filestorage>\n"
	l := &Loader{Overrides: []string{"2/path=c", "2/read-only=yes"}}
	c, err := l.Parse("zeo.conf", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	one, two := c.Storages[0].Spec.(*FileStorage), c.Storages[1].Spec.(*FileStorage)
	if one.Path != "a" || one.ReadOnly || two.Path != "c" || !two.ReadOnly {
		t.Errorf("storages are %+v and %+v", one, two)
	}
}

// What is wrong with an override is said with its own words.
func TestOverrideErrors(t *testing.T) {
	l := &Loader{Overrides: []string{"zeo/address=x:y", "zeo/adress=1", "none/path=x", "zeo/address"}}
	_, err := l.Parse("zeo.conf", strings.NewReader("<zeo>\n address 1\n</zeo>\n<mappingstorage/>\n"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"-X zeo/address=x:y: <zeo>: address \"x:y\": ", "-X zeo/adress=1: <zeo>: unknown key \"adress\" (did you mean \"address\"?)",
		"-X none/path=x: the file has no section of the name or type \"none\"", "-X zeo/address: want a key and a value",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
