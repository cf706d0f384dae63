package state

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// stores opens one store of each kind.
func stores(t *testing.T) map[string]Store {
	t.Helper()
	f, err := OpenFile(filepath.Join(t.TempDir(), "tailscaled.state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return map[string]Store{"file": f, "memory": NewMemory(), "kube": newKubeWorld(t).open(t)}
}

// TestStore: what a Store promises holds for each kind (SVC-137, SVC-142).
func TestStore(t *testing.T) {
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if _, err := s.Read(ctx, "a"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `"a"`) {
				t.Errorf("read of a missing value: %v, want ErrNotFound that names it", err)
			}
			value := []byte("\x00\xff any bytes")
			mustWrite(t, s, "a", value)
			value[0] = 'x' // the store has its own copy
			got := mustRead(t, s, "a")
			if string(got) != "\x00\xff any bytes" {
				t.Errorf("read %q", got)
			}
			got[0] = 'y' // and gives one away
			if got := mustRead(t, s, "a"); got[0] != 0 {
				t.Error("the caller's bytes are the store's")
			}
			mustWrite(t, s, "a", []byte{})
			if got := mustRead(t, s, "a"); got == nil || len(got) != 0 {
				t.Errorf("an empty value is read as %v", got)
			}
			mustWrite(t, s, "a", nil)
			if _, err := s.Read(ctx, "a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("read of a deleted value: %v, want ErrNotFound", err)
			}
			mustWrite(t, s, "a", nil)
		})
	}
}

func TestStoreContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, s := range stores(t) {
		if err := s.Write(ctx, "a", []byte("x")); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: write: %v", name, err)
		}
		if _, err := s.Read(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
}

func TestStoreConcurrent(t *testing.T) {
	for name, s := range stores(t) {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				id := string(rune('a' + i))
				for n := range 10 {
					if err := s.Write(t.Context(), id, bytes.Repeat([]byte(id), n)); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		for i := range 4 {
			id := string(rune('a' + i))
			if got := mustRead(t, s, id); string(got) != strings.Repeat(id, 9) {
				t.Errorf("%s: %q holds %q", name, id, got)
			}
		}
	}
}

// TestOpen: specs choose the store, and unknown kinds are errors (SVC-139).
func TestOpen(t *testing.T) {
	t.Chdir(t.TempDir())
	for spec, want := range map[string]string{
		"mem:":           "state.Memory",
		"mem:anything":   "state.Memory",
		"node.state":     "state.File(node.state)",
		"./kube:x":       "state.File(kube:x)",
		"dir/arn:x":      "state.File(" + filepath.Join("dir", "arn:x") + ")",
		"sub/node.state": "state.File(" + filepath.Join("sub", "node.state") + ")",
	} {
		s, err := Open(spec)
		if err != nil {
			t.Errorf("Open(%q): %v", spec, err)
			continue
		}
		if c, ok := s.(io.Closer); ok {
			defer c.Close()
		}
		if got := s.(interface{ String() string }).String(); got != want {
			t.Errorf("Open(%q) = %s, want %s", spec, got, want)
		}
	}
	for _, spec := range []string{"", "kube:secret", "arn:aws:ssm", "tpmseal:x", "unknown:"} {
		if s, err := Open(spec); err == nil {
			t.Errorf("Open(%q) = %v, want an error", spec, s)
		}
	}
}

func TestSpecPrefix(t *testing.T) {
	for spec, want := range map[string]string{
		"kube:a":    "kube:",
		`C:\x`:      "",
		"C:/x":      "",
		"/a:b":      "",
		`dir\kube:`: "",
		":x":        "",
		"plain":     "",
		"":          "",
	} {
		if got, ok := specPrefix(spec); got != want || ok != (want != "") {
			t.Errorf("specPrefix(%q) = %q, %v; want %q", spec, got, ok, want)
		}
	}
}

func mustRead(t *testing.T, s Store, id string) []byte {
	t.Helper()
	b, err := s.Read(context.Background(), id)
	if err != nil {
		t.Fatalf("read %q: %v", id, err)
	}
	return b
}

func mustWrite(t *testing.T, s Store, id string, value []byte) {
	t.Helper()
	if err := s.Write(context.Background(), id, value); err != nil {
		t.Fatalf("write %q: %v", id, err)
	}
}
