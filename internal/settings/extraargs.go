package settings

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// A foreignFlag is a flag of `tailscale up` or tailscaled: the setting of ours it
// stands for, why it cannot be honoured, or neither, when it changes nothing here.
type foreignFlag struct {
	name   string
	sets   string
	refuse string
	isBool bool
	fine   string // the one value that is not refused
}

// upFlags are the flags of `tailscale up` (SVC-161). Those with the name of a
// setting are not listed.
var upFlags = []foreignFlag{
	{name: "client-secret", sets: "auth-key"},
	{name: "client-id"},
	{name: "reset", isBool: true}, // nothing is remembered from one start to the next
	{name: "accept-risk"},
	{name: "qr", isBool: true},
	{name: "qr-format"},
	{name: "json", isBool: true},
	{name: "unattended", isBool: true},
	{name: "host-routes", isBool: true},
	{name: "netfilter-mode"},
	{name: "snat-subnet-routes", isBool: true, fine: "true", refuse: "connections to advertised routes come from this machine's own address: a node in userspace has no other way"},
	{name: "stateful-filtering", isBool: true},
	{name: "force-reauth", isBool: true, fine: "false", refuse: "a node logs in anew with 'tsnode login', or with another --state-dir"},
	{name: "ssh", isBool: true, fine: "false", refuse: "this version has no SSH server"},
	{name: "webclient", isBool: true, fine: "false", refuse: "this version has no web client"},
	{name: "advertise-connector", isBool: true, fine: "false", refuse: "this version is no app connector"},
	{name: "report-posture", isBool: true, fine: "false", refuse: "this version reports no posture"},
	{name: "auto-update", isBool: true, fine: "false", refuse: "this program does not update itself"},
	{name: "id-token", refuse: noFederated},
	{name: "audience", refuse: noFederated},
}

// daemonFlags are the flags of tailscaled (node-services.md section 18).
var daemonFlags = []foreignFlag{
	{name: "tun", fine: "userspace-networking", refuse: "this is a node in userspace: want userspace-networking"},
	{name: "statedir", sets: "state-dir"},
	{name: "socks5-server", sets: "socks5"},
	{name: "outbound-http-proxy-listen", sets: "http-proxy"},
	{name: "no-logs-no-support", isBool: true},
	{name: "cleanup", isBool: true},
	{name: "verbose"}, // a number: see takeDaemonArgs
	{name: "debug", refuse: "there is no debug server: use metrics (TSNODE_METRICS)"},
	{name: "config", refuse: "that is a file of tailscaled: write one for --config (TSNODE_CONFIG)"},
	{name: "bird-socket", refuse: "this version does not speak to BIRD"},
	{name: "encrypt-state", isBool: true, fine: "false", refuse: "this version has no TPM store"},
	{name: "hardware-attestation", isBool: true, fine: "false", refuse: "this version has no hardware attestation"},
	{name: "syspolicy-file", refuse: "this version reads no system policy"},
}

// daemonSettings are the settings that tailscaled has by the same names.
var daemonSettings = []string{"port", "state", "socket"}

func takeExtraArgs(e *environment, text string) error {
	allowed := make(map[string]bool)
	for _, s := range table {
		ours := s.Group&(Node|Route) != 0 && s.Name != "state" && s.Name != "state-dir"
		allowed[s.Name] = ours || s.Name == "operator" || s.Name == "timeout"
	}
	return e.foreignArgs("TS_EXTRA_ARGS", text, upFlags, allowed)
}

func takeDaemonArgs(e *environment, text string) error {
	allowed := make(map[string]bool)
	for _, name := range daemonSettings {
		allowed[name] = true
	}
	return e.foreignArgs("TS_TAILSCALED_EXTRA_ARGS", text, daemonFlags, allowed)
}

// foreignArgs sets what the flags of another program say that has some of ours
// beside its own.
func (e *environment) foreignArgs(variable, text string, own []foreignFlag, allowed map[string]bool) error {
	f := pflag.NewFlagSet(variable, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	values := make(map[string]*foreignValue)
	define := func(flag foreignFlag) {
		values[flag.name] = &foreignValue{foreignFlag: flag}
		made := f.VarPF(values[flag.name], flag.name, "", "")
		if flag.isBool {
			made.NoOptDefVal = "true"
		}
	}
	for _, flag := range own {
		define(flag)
	}
	for _, s := range table {
		if allowed[s.Name] && values[s.Name] == nil {
			kind := s.value(Defaults()).Type()
			define(foreignFlag{name: s.Name, sets: s.Name, isBool: kind == kindSwitch || kind == kindRoutes})
		}
	}
	if err := f.Parse(twoDashes(strings.Fields(text))); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is no flag: flags are apart by spaces, without quotes", f.Arg(0))
	}
	return e.takeForeign(variable, f, values)
}

// takeForeign sets what the flags that were given say.
func (e *environment) takeForeign(variable string, f *pflag.FlagSet, values map[string]*foreignValue) error {
	var errs []error
	f.Visit(func(given *pflag.Flag) {
		v := values[given.Name]
		var err error
		switch {
		case v.refuse != "" && v.text != v.fine:
			err = errors.New(v.refuse)
		case v.name == "verbose" && v.sets == "":
			err = e.into.set("verbose", fmt.Sprint(v.text != "0"), variable)
		case v.sets != "":
			err = e.set(v.sets, v.text, variable)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", given.Name, err))
		}
	})
	return errors.Join(errs...)
}

// twoDashes makes --flag of -flag: the reference takes both for the same.
func twoDashes(args []string) []string {
	for i, a := range args {
		if strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && len(a) > 2 {
			args[i] = "-" + a
		}
	}
	return args
}

// A foreignValue is what a foreign flag was given.
type foreignValue struct {
	foreignFlag
	text string
}

// Set implements pflag.Value.
func (v *foreignValue) Set(text string) error { v.text = text; return nil }

// String implements pflag.Value.
func (v *foreignValue) String() string { return v.text }

// Type implements pflag.Value.
func (*foreignValue) Type() string { return kindText }
