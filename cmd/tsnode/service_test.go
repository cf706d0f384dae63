package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
)

// The unit of systemd runs a command line that is understood, and its user, who can
// read no file of root's, gets the auth key as a credential.
func TestServiceUnit(t *testing.T) {
	var c configuration
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	c.add(f)
	var environ []string
	credentials := make(map[string]bool)
	for line := range strings.Lines(readText(t, "../../dist/tsnode.service")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ExecStart":
			_, args, ok := strings.Cut(value, " run ")
			if err := f.Parse(strings.Fields(args)); err != nil || !ok || f.NArg() > 0 {
				t.Errorf("%s: %v, %q", line, err, f.Args())
			}
		case "Environment":
			environ = append(environ, value)
		case "LoadCredential":
			id, _, _ := strings.Cut(value, ":")
			credentials["file:/run/credentials/tsnode.service/"+id] = true
		}
	}
	s, err := settings.Sources{Environ: environ, Flags: f, Groups: everySetting}.Read()
	if err != nil {
		t.Fatal(err)
	}
	if !credentials[s.AuthKey] || c.file == "" || s.StateDir == "" || s.Socket == "" || len(s.Warnings) > 0 {
		t.Errorf("auth key %q of %v, configuration %q, state %q, socket %q, warnings %q", s.AuthKey, credentials, c.file, s.StateDir, s.Socket, s.Warnings)
	}
}
