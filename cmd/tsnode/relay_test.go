package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/transport/derp/probe"
	"github.com/seed94491740/tsnode/transport/derp/relayd"
)

// Each setting of a configuration file has a flag of the same name, and each
// flag with a default shows that of the package.
func TestRelayFlagsAreTheConfig(t *testing.T) {
	c := relayd.DefaultConfig()
	f := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	addRelayFlags(f, &c)
	names := make(map[string]bool)
	jsonNames(reflect.TypeOf(c), names)
	for name := range names {
		if f.Lookup(name) == nil {
			t.Errorf("setting %q has no flag", name)
		}
	}
	f.VisitAll(func(flag *pflag.Flag) {
		if !names[flag.Name] {
			t.Errorf("flag --%s is no setting of the file", flag.Name)
		}
		if flag.Usage == "" {
			t.Errorf("flag --%s is not documented", flag.Name)
		}
	})
	if !reflect.DeepEqual(c, relayd.DefaultConfig()) {
		t.Error("defining the flags has changed the defaults")
	}
}

// jsonNames collects the names of a struct's fields, those of embedded structs
// included.
func jsonNames(t reflect.Type, names map[string]bool) {
	for i := range t.NumField() {
		field := t.Field(i)
		switch name := field.Tag.Get("json"); {
		case field.Anonymous:
			jsonNames(field.Type, names)
		case name != "-":
			names[name] = true
		}
	}
}

// Flags beat the file, lists included, and the file beats the defaults.
func TestRelayFlagsBeatTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.hujson")
	text := `{"mesh-with": ["a", "b"], "bootstrap-dns-names": ["c"], "drain": "1m", "stun": false, "addr": ":1"}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := relayOptions{file: file, shown: relayd.DefaultConfig()}
	f := pflag.NewFlagSet("relay", pflag.ContinueOnError)
	addRelayFlags(f, &o.shown)
	if err := f.Parse([]string{"--mesh-with", "x,y", "--stun", "--log-level", "warn", "--drain=2s"}); err != nil {
		t.Fatal(err)
	}
	c, err := o.read(f)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.MeshWith, []string{"x", "y"}) || !reflect.DeepEqual(c.BootstrapDNS, []string{"c"}) ||
		!c.STUN || c.Addr != ":1" || c.Drain.String() != "2s" || c.LogLevel.String() != "WARN" || !c.DERP {
		t.Errorf("got %+v", c)
	}
}

// A relay runs until it is told to stop, and reads again what it may on SIGHUP.
func TestRelayCommand(t *testing.T) {
	dir := t.TempDir()
	file, rate := filepath.Join(dir, "relay.hujson"), filepath.Join(dir, "rate.json")
	for name, text := range map[string]string{
		file: `{"log-level": "info"}`, rate: `{"PerClientRateLimitBytesPerSec": 1000000}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	relay := command(t, "relay", "--config", file, "--certmode", "none", "--addr", "127.0.0.1:0", "--debug-addr", "127.0.0.1:0",
		"--stun-port", "0", "--key-file", filepath.Join(dir, "relay.key"), "--rate-config", rate)
	find(t, relay, "(relay is running)")
	if err := os.WriteFile(rate, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line := find(t, relay, "(.*reload failed.*)"); !strings.Contains(line, "the old limit stays") {
		t.Errorf("log line %q", line)
	}
	go io.Copy(io.Discard, relay)
}

// probe measures a relay that the command runs, and says so with JSON; a relay
// that is not there fails the command.
func TestRelayProbeCommand(t *testing.T) {
	dir := t.TempDir()
	relay := command(t, "relay", "--hostname", "127.0.0.1", "--certmode", "manual", "--certdir", dir, "--addr", "127.0.0.1:0",
		"--http-port", "-1", "--debug-addr", "", "--stun=false", "--key-file", filepath.Join(dir, "relay.key"))
	addr := find(t, relay, `listen\.relay=(\S+)`)
	go io.Copy(io.Discard, relay)
	measure := func(url string) (probe.Report, error) {
		out := new(strings.Builder)
		root := newRoot()
		root.SetArgs([]string{"relay", "probe", "--json", "--no-stun", "--websocket", "--ca", filepath.Join(dir, "127.0.0.1.crt"), url})
		root.SetOut(out)
		root.SetErr(io.Discard)
		err := root.ExecuteContext(t.Context())
		var r probe.Report
		if e := json.Unmarshal([]byte(out.String()), &r); e != nil {
			t.Errorf("%v\n%s", e, out)
		}
		return r, err
	}
	if r, err := measure("https://" + addr); err != nil || len(r.Relays) != 1 {
		t.Errorf("%v\n%s", err, r.String())
	}
	if r, err := measure("https://127.0.0.1:1"); err == nil || len(r.Failures()) == 0 {
		t.Errorf("a relay that is not there: %v\n%s", err, r.String())
	}
}
