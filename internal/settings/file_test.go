package settings

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each file of testdata/bad says what is wrong with it, where, and what to do: its
// message is beside it, and -update rewrites that.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.hujson")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		err = readFile(filepath.Base(file), text, newTarget(everything))
		if err == nil {
			t.Errorf("%s is taken for a good one", file)
			continue
		}
		golden := strings.TrimSuffix(file, ".hujson") + ".txt"
		got := err.Error() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\ngot  %swant %s", file, err, got, want)
		}
	}
}

func TestFileWithinFileIsBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 1<<20), strings.Repeat(`{"a":`, 1<<10), "{}" + strings.Repeat(" ", MaxFile)} {
		if err := readFile("file", []byte(text), newTarget(everything)); err == nil {
			t.Errorf("%d bytes that begin with %.10q are taken", len(text), text)
		}
	}
}

// FuzzFile: no file makes the reader fail otherwise than with errors that name a
// place in it, one per line; and what it accepts it accepts again in the same way.
func FuzzFile(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.hujson")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"hostname": "a", "local": ["1:a:1"], "accept-routes": ["a"], "port": 7, "drain": "1s", "memory-limit": 9}`))
	place := regexp.MustCompile(`^f:( more than|[0-9]+:[0-9]+: )`)
	f.Fuzz(func(t *testing.T, text []byte) {
		into := newTarget(everything)
		err := readFile("f", text, into)
		if err == nil {
			again := newTarget(everything)
			if err := readFile("f", text, again); err != nil {
				t.Errorf("accepted once only: %v", err)
			}
			for name, v := range into.values {
				if v.String() != again.values[name].String() {
					t.Errorf("%s: %q, then %q", name, v, again.values[name])
				}
			}
			return
		}
		for _, e := range each(err) {
			if !place.MatchString(e.Error()) {
				t.Errorf("an error without its place: %q", e)
			}
		}
	})
}

// each returns the errors that were joined.
func each(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}
