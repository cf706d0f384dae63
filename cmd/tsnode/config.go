package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/proxy"
)

// everySetting is what a node in the foreground has.
const everySetting = settings.Node | settings.Route | settings.Serve

// A configuration is where the settings of a node in the foreground come from. They
// can be read again.
type configuration struct {
	file  string // that --config names; empty: what the environment says, if anything
	flags *pflag.FlagSet
}

// add defines the flags.
func (c *configuration) add(f *pflag.FlagSet) {
	c.flags = f
	settings.AddFlags(f, everySetting)
	f.StringVar(&c.file, "config", "", "HuJSON file with the flags' names as keys; the environment beats it, and flags beat that")
}

// path is the configuration file; empty: none.
func (c *configuration) path() string {
	return cmp.Or(c.file, os.Getenv(settings.ConfigVariable))
}

// read returns what file, environment and flags say together.
func (c *configuration) read() (*settings.Settings, error) {
	src := settings.Sources{Name: c.path(), Environ: os.Environ(), Flags: c.flags, Groups: everySetting}
	if src.Name != "" {
		text, err := os.ReadFile(src.Name)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		src.File = append(text, '\n') // even an empty file must hold an object
	}
	s, err := src.Read()
	if err != nil {
		return nil, &usageError{err}
	}
	return s, nil
}

// forwardsOf returns the forwards and proxies that settings name.
func forwardsOf(s *settings.Settings) (specs []proxy.Spec, err error) {
	if err := checkStackless(s); err != nil {
		return nil, err
	}
	for _, each := range []struct {
		texts []string
		parse func(string) ([]proxy.Spec, error)
	}{
		{s.Local, proxy.ParseLocal},
		{s.Remote, proxy.ParseRemote},
		{nonEmptyOf(s.SOCKS5), parseProxy(proxy.SOCKS)},
		{nonEmptyOf(s.HTTPProxy), parseProxy(proxy.HTTP)},
	} {
		for _, text := range each.texts {
			some, err := each.parse(text)
			if err != nil {
				return nil, &usageError{err}
			}
			specs = append(specs, some...)
		}
	}
	return specs, checkExposure(s, specs)
}

func nonEmptyOf(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// parseProxy returns what parses the address of a proxy of one kind.
func parseProxy(kind proxy.Kind) func(string) ([]proxy.Spec, error) {
	return func(text string) ([]proxy.Spec, error) {
		spec, err := proxy.ParseProxy(kind, text)
		return []proxy.Spec{spec}, err
	}
}

// checkExposure refuses proxies that whoever reaches this machine could use
// (SVC-168).
func checkExposure(s *settings.Settings, specs []proxy.Spec) error {
	if s.ProxyAuth != "" || s.ProxyOpen {
		return nil
	}
	proxies := []proxy.Kind{proxy.SOCKS, proxy.HTTP, proxy.Mixed}
	for _, spec := range specs {
		if slices.Contains(proxies, spec.Kind) && !onlyLocal(spec.Listen) {
			return &usageError{fmt.Errorf("%v: others on the network could use this proxy: listen on 127.0.0.1, ask for a password with --proxy-auth file:PATH, or permit it with --proxy-open", spec)}
		}
	}
	return nil
}

// onlyLocal reports whether only programs of this machine can connect to an address.
func onlyLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// errNoConfig says that there is nothing to read again.
var errNoConfig = errors.New("there is no configuration file to read again: start with --config FILE")
