package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func openFile(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestFileFormat: the file is tailscaled's, byte for byte (SVC-137).
func TestFileFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "tailscaled.state")
	f := openFile(t, path)
	if got := readFile(t, path); got != "{}" {
		t.Errorf("a new file holds %q, want {}", got)
	}
	mustWrite(t, f, "b", []byte("two"))
	mustWrite(t, f, "a", []byte("one"))
	want := "{\n  \"a\": \"b25l\",\n  \"b\": \"dHdv\"\n}"
	if got := readFile(t, path); got != want {
		t.Errorf("file holds %q, want %q", got, want)
	}
	if runtime.GOOS == "windows" { // has no such modes
		return
	}
	for path, want := range map[string]fs.FileMode{path: fileMode, filepath.Dir(path): dirMode | fs.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// TestFileGolden: tsnet's own file reads, and writing back what it holds leaves
// it alone.
func TestFileGolden(t *testing.T) {
	path := copyGolden(t)
	before := readFile(t, path)
	f := openFile(t, path)
	for id, v := range maps.Clone(f.values) {
		mustWrite(t, f, id, v)
	}
	if len(f.values) != 4 {
		t.Errorf("%d values, want 4", len(f.values))
	}
	if after := readFile(t, path); after != before {
		t.Errorf("file changed from\n%s\nto\n%s", before, after)
	}
	mustWrite(t, f, "new", []byte("x"))
	mustWrite(t, f, "new", nil)
	if after := readFile(t, path); after != before+"\n" && after != before {
		t.Errorf("file differs from tsnet's format:\n%s\nwant\n%s", after, before)
	}
}

func TestFileReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := openFile(t, path)
	mustWrite(t, f, "a", []byte("kept"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := f.Read(t.Context(), "a"); !errors.Is(err, errClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := f.Write(t.Context(), "a", nil); !errors.Is(err, errClosed) {
		t.Errorf("write after close: %v", err)
	}
	if got := mustRead(t, openFile(t, path), "a"); string(got) != "kept" {
		t.Errorf("read %q after reopening", got)
	}
}

// TestFileUnchanged: a write that changes nothing does not touch the disk
// (SVC-137).
func TestFileUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := openFile(t, path)
	mustWrite(t, f, "a", []byte("x"))
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, "a", []byte("x"))
	mustWrite(t, f, "b", nil)
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}
}

// TestFileEmpty: an empty file and null values are as if missing (SVC-137).
func TestFileEmpty(t *testing.T) {
	for _, content := range []string{"", "{}", `{"a": null}`} {
		path := filepath.Join(t.TempDir(), "s")
		writeFile(t, path, content)
		f := openFile(t, path)
		if _, err := f.Read(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("file %q: read: %v, want ErrNotFound", content, err)
		}
	}
}

// TestFileDamaged: a file that does not parse is an error that names it, and
// stays as it is: a new login would destroy what a backup could mend.
func TestFileDamaged(t *testing.T) {
	for _, content := range []string{"null", "[]", "{", `{"a": 1}`, `{"a": "!"}`, `{"a": "eA=="} x`, "\x00\x00"} {
		path := filepath.Join(t.TempDir(), "s")
		writeFile(t, path, content)
		if f, err := OpenFile(path); err == nil {
			f.Close()
			t.Errorf("%q was accepted", content)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error does not name the file: %v", content, err)
		}
		if got := readFile(t, path); got != content {
			t.Errorf("%q became %q", content, got)
		}
		f, err := OpenFile(path + "2") // the lock of the first is given up
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// TestFileTruncated: no truncation of a file passes for a whole one.
func TestFileTruncated(t *testing.T) {
	whole := readFile(t, filepath.Join("testdata", "tsnet-v1.102.5.state"))
	whole = strings.TrimSpace(whole)
	for n := 1; n < len(whole); n++ {
		if v, err := parseFile([]byte(whole[:n])); err == nil {
			t.Fatalf("the first %d bytes parse, to %d values", n, len(v))
		}
	}
}

func TestFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	writeFile(t, path, "{}")
	if err := os.Truncate(path, maxFileSize+1); err != nil {
		t.Fatal(err)
	}
	if f, err := OpenFile(path); err == nil {
		f.Close()
		t.Error("a file beyond the limit was read")
	}
	f := openFile(t, path+"2")
	mustWrite(t, f, "a", []byte("x"))
	if err := f.Write(t.Context(), "b", make([]byte, maxFileSize)); err == nil {
		t.Error("a value beyond the limit was written")
	}
	if _, err := f.Read(t.Context(), "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the failed write is seen: %v", err)
	}
	if got := mustRead(t, f, "a"); string(got) != "x" {
		t.Errorf("a became %q", got)
	}
}

// TestFileKinds: what a rename would destroy is refused.
func TestFileKinds(t *testing.T) {
	dir := t.TempDir()
	if f, err := OpenFile(dir); err == nil {
		f.Close()
		t.Error("a directory was opened")
	} else if !strings.Contains(err.Error(), "name a file in it") {
		t.Errorf("directory: %v; want what to do", err)
	}
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	f := openFile(t, real)
	mustWrite(t, f, "a", []byte("x"))
	f.Close()
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	f = openFile(t, link)
	mustWrite(t, f, "a", []byte("y"))
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info.Mode(), err)
	}
	if !strings.Contains(readFile(t, real), "eQ==") {
		t.Error("the file behind the link was not written")
	}
	if f2, err := OpenFile(real); !errors.Is(err, ErrLocked) {
		f2.Close()
		t.Errorf("opened twice, by two names: %v", err)
	}
}

// TestFileWriteFails: a write that fails changes nothing, on disk or in memory.
func TestFileWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	f := openFile(t, path)
	mustWrite(t, f, "a", []byte("x"))
	before := readFile(t, path)
	// A directory in the place of the temporary file fails for root, too.
	if err := os.MkdirAll(filepath.Join(path+".tmp", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(t.Context(), "a", []byte("y")); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("write: %v, want an error that names the file", err)
	}
	if got := mustRead(t, f, "a"); string(got) != "x" || readFile(t, path) != before {
		t.Errorf("after a failed write: %q in memory, %s on disk", got, readFile(t, path))
	}
	f.Close()
	if f, err := OpenFile(path); err == nil {
		f.Close()
		t.Error("a file that cannot be replaced was opened: keys would be lost at the first login")
	}
}

// TestFileLeftovers: what a crash left of a write is cleared away, and is not
// followed if it is a link.
func TestFileLeftovers(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "s"), filepath.Join(dir, "victim")
	writeFile(t, victim, "precious")
	if err := os.Symlink(victim, path+".tmp"); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path)
	mustWrite(t, f, "a", []byte("x"))
	if got := readFile(t, victim); got != "precious" {
		t.Errorf("the file behind a planted link became %q", got)
	}
	if _, err := os.Lstat(path + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary file after a write: %v", err)
	}
}

// TestFileLock: a second process is refused until the first ends.
func TestFileLock(t *testing.T) {
	if path := os.Getenv("STATE_TEST_OPEN"); path != "" {
		f, err := OpenFile(path)
		fmt.Println(err)
		if err == nil {
			f.Close()
		}
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	f := openFile(t, path)
	other := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFileLock$")
		cmd.Env = append(os.Environ(), "STATE_TEST_OPEN="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := other(); !strings.Contains(out, "another process uses it") || !strings.Contains(out, filepath.Dir(path)) {
		t.Errorf("second process: %s; want that the state is in use", out)
	}
	f.Close()
	if out := other(); !strings.HasPrefix(out, "<nil>") {
		t.Errorf("after close: %s", out)
	}
}

// FuzzParseFile: any file either fails or is written back with the same values.
func FuzzParseFile(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "tsnet-v1.102.5.state"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"a":"","b":null,"c":"eA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseFile(b)
		if err != nil {
			return
		}
		b, err = json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseFile(b)
		if err != nil || len(again) != len(v) {
			t.Fatalf("%d values became %d: %v", len(v), len(again), err)
		}
		for id := range v {
			if string(again[id]) != string(v[id]) {
				t.Errorf("%q: %q became %q", id, v[id], again[id])
			}
		}
	})
}

func copyGolden(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tailscaled.state")
	writeFile(t, path, readFile(t, filepath.Join("testdata", "tsnet-v1.102.5.state")))
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
