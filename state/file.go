package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

const (
	fileMode = 0o600 // SVC-137
	dirMode  = 0o700 // SVC-137

	// maxFileSize bounds a state file in bytes. A profile takes about 2 KiB and
	// a stored certificate 5 KiB.
	maxFileSize = 16 << 20
)

// A File is a store in one file: a JSON object of base64 values, replaced as a
// whole on every change and held against other users by a lock (SVC-137).
type File struct {
	path string
	lock *os.File // kept open: closing it gives the lock up

	mu     sync.Mutex
	values map[string][]byte // what the file holds; never modified, only replaced
	closed bool
}

var errClosed = errors.New("the state store is closed")

// OpenFile opens the state file at path, making it and its directories when
// they are missing. It fails when the file is damaged, cannot be replaced or is
// in use: a node that cannot keep its keys must not log in.
func OpenFile(path string) (*File, error) {
	f := &File{path: resolve(path)}
	if err := f.open(); err != nil {
		if f.lock != nil {
			f.lock.Close()
		}
		return nil, fmt.Errorf("state: %w", err)
	}
	return f, nil
}

// resolve follows a symbolic link, so that replacing the file keeps the link
// and two links to one file share a lock.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

func (f *File) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), dirMode); err != nil {
		return fmt.Errorf("cannot make the directory of state file %s: %w", f.path, err)
	}
	if err := checkKind(f.path); err != nil {
		return err
	}
	if f.lock, err = lockFile(f.path + ".lock"); err != nil {
		return lockError(f.path, err)
	}
	empty, err := f.load()
	if err != nil {
		return err
	}
	return f.checkWritable(empty)
}

// checkKind refuses what a rename would destroy or fail on.
func checkKind(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory: name a file in it, such as %s", path, filepath.Join(path, "tailscaled.state"))
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}

// ErrLocked says that another process has the state file open.
var ErrLocked = errors.New("another process uses it")

func lockError(path string, err error) error {
	if errors.Is(err, ErrLocked) {
		return fmt.Errorf("state directory %s is in use: %w: stop that process, or give this node a directory of its own", filepath.Dir(path), err)
	}
	return fmt.Errorf("state directory %s is not writable: %w", filepath.Dir(path), err)
}

// load reads the file; a missing or empty one holds nothing (SVC-137).
func (f *File) load() (empty bool, err error) {
	b, err := readLimited(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		f.values = make(map[string][]byte)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read state file: %w", err)
	}
	if f.values, err = parseFile(b); err != nil {
		return false, fmt.Errorf("state file %s is damaged and was left as it is: %w: restore it from a backup, or move it away to log in anew", f.path, err)
	}
	return false, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(b) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileSize)
	}
	return b, err
}

func parseFile(b []byte) (map[string][]byte, error) {
	var values map[string][]byte
	if err := json.Unmarshal(b, &values); err != nil {
		return nil, err
	}
	if values == nil {
		return nil, errors.New("want a JSON object, got null")
	}
	// null is what a nil value would be: none.
	maps.DeleteFunc(values, func(_ string, v []byte) bool { return v == nil })
	return values, nil
}

// checkWritable finds out before the first login whether keys can be kept.
func (f *File) checkWritable(empty bool) error {
	if empty {
		return f.replace(f.values)
	}
	if err := os.Chmod(f.path, fileMode); err != nil {
		return fmt.Errorf("cannot protect state file: %w", err)
	}
	tmp, err := f.createTemp()
	if err != nil {
		return fmt.Errorf("state file %s cannot be replaced: %w", f.path, err)
	}
	return errors.Join(tmp.Close(), os.Remove(tmp.Name()), syncDir(filepath.Dir(f.path)))
}

// String names the file.
func (f *File) String() string { return fmt.Sprintf("state.File(%s)", f.path) }

// Format never shows the values, whatever the verb.
func (f *File) Format(s fmt.State, _ rune) { io.WriteString(s, f.String()) }

// Path returns the path of the file, with symbolic links followed.
func (f *File) Path() string { return f.path }

// Read returns a copy of the value of id.
func (f *File) Read(ctx context.Context, id string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("state: read %q: %w", id, errClosed)
	}
	v, ok := f.values[id]
	if !ok {
		return nil, notFound(id)
	}
	return append([]byte{}, v...), nil
}

// Write replaces the value of id on disk; nil deletes. A write that changes
// nothing does not touch the disk, and one that fails changes nothing.
func (f *File) Write(ctx context.Context, id string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("state: write %q: %w", id, errClosed)
	}
	next := f.changed(id, value)
	if next == nil {
		return nil
	}
	if err := f.replace(next); err != nil {
		return fmt.Errorf("state: write %q: %w", id, err)
	}
	f.values = next
	return nil
}

// changed returns the values after the write, or nil when they are the same.
func (f *File) changed(id string, value []byte) map[string][]byte {
	old, had := f.values[id]
	if had == (value != nil) && bytes.Equal(old, value) {
		return nil
	}
	next := maps.Clone(f.values)
	if value == nil {
		delete(next, id)
	} else {
		next[id] = append([]byte{}, value...) // not nil when empty: null would be no value
	}
	return next
}

// replace makes values the content of the file, all of them or none: a crash
// leaves the old file or the new one.
func (f *File) replace(values map[string][]byte) error {
	b, err := json.MarshalIndent(values, "", "  ")
	if err != nil {
		return err
	}
	if len(b) > maxFileSize {
		return fmt.Errorf("state file %s would grow beyond %d bytes", f.path, maxFileSize)
	}
	tmp, err := f.createTemp()
	if err != nil {
		return fmt.Errorf("state file %s cannot be replaced: %w", f.path, err)
	}
	if err := errors.Join(writeSynced(tmp, b), tmp.Close()); err != nil {
		return errors.Join(fmt.Errorf("state file %s cannot be replaced: %w", f.path, err), os.Remove(tmp.Name()))
	}
	if err := os.Rename(tmp.Name(), f.path); err != nil {
		return errors.Join(fmt.Errorf("state file %s cannot be replaced: %w", f.path, err), os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(f.path))
}

// createTemp makes the file that will become the next state file. The lock
// makes its fixed name ours, so what a crash left of it goes away here; O_EXCL
// keeps it from following a link somebody has put there.
func (f *File) createTemp() (*os.File, error) {
	name := f.path + ".tmp"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
}

func writeSynced(f *os.File, b []byte) error {
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// Close gives the file up for other processes. Reads and writes then fail.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.lock.Close()
}
