package main

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
)

// readConfiguration reads a configuration file.
func readConfiguration(t *testing.T, path string, args ...string) (*settings.Settings, error) {
	t.Helper()
	var c configuration
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	c.add(f)
	if err := f.Parse(append([]string{"--config", path}, args...)); err != nil {
		t.Fatal(err)
	}
	return c.read()
}

// A configuration file that cannot be read is a mistake in the command line, and says
// what to do; one that has no end is not read to it.
func TestUnreadableConfiguration(t *testing.T) {
	for path, want := range map[string]string{
		t.TempDir() + "/none": "name a file that this user may read with --config",
		t.TempDir():           "configuration",
		"/dev/zero":           "/dev/zero: more than 1048576 bytes",
	} {
		var usage *usageError
		if _, err := readConfiguration(t, path); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A file with a secret in it that others may read is told.
func TestReadableSecret(t *testing.T) {
	if runtime.GOOS == "windows" { // the mode bits of package os say nothing there
		t.Skip("files have no such permissions")
	}
	const warning = "holds a secret, and other users may read it"
	for _, test := range []struct {
		text string
		mode os.FileMode
		want bool
	}{
		{`{"auth-key": "hush"}`, 0o644, true}, {`{"auth-key": "hush"}`, 0o640, true}, {`{"auth-key": "hush"}`, 0o600, false},
		{`{"auth-key": "file:/run/key"}`, 0o644, false}, {`{"proxy-auth": "user:hush"}`, 0o644, true}, {`{"hostname": "a"}`, 0o644, false},
	} {
		path := writeFile(t, "tsnode.hujson", test.text)
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		s, err := readConfiguration(t, path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(s.Warnings, "\n"), warning); got != test.want {
			t.Errorf("%s with %v: warned %v", test.text, test.mode, got)
		}
	}
}

// Forwards and proxies come from all places together, and none with -W (ssh(1),
// ClearAllForwardings).
func TestForwardsOfConfiguration(t *testing.T) {
	path := writeFile(t, "tsnode.hujson", `{"local": ["1:a:1"], "socks5": ["1080", "unix:/run/s"], "http-proxy": "1080"}`)
	s, err := readConfiguration(t, path, "-R", "2:b:2")
	if err != nil {
		t.Fatal(err)
	}
	specs, err := forwardsOf(s)
	if err != nil || len(specs) != 5 {
		t.Errorf("%v, %v", specs, err)
	}
	if s, err = readConfiguration(t, path, "-W", "web:22"); err != nil {
		t.Fatal(err)
	}
	if specs, err := forwardsOf(s); err != nil || len(specs) > 0 {
		t.Errorf("with -W: %v, %v", specs, err)
	}
}
