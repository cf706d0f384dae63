package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/proxy"
)

// A listener is a forward or proxy, and what has set it.
type listener struct {
	proxy.Spec
	from string
}

// allListeners returns all forwards and proxies.
func (s *Settings) allListeners() (all []listener) {
	take := func(setting string, parse func(string) ([]proxy.Spec, error), texts []string) {
		for _, text := range texts {
			some, _ := parse(text) // which the setting has checked
			for _, spec := range some {
				all = append(all, listener{spec, s.From(setting)})
			}
		}
	}
	take("local", proxy.ParseLocal, s.Local)
	take("remote", proxy.ParseRemote, s.Remote)
	take("socks5", oneProxy(proxy.SOCKS), s.SOCKS5)
	take("http-proxy", oneProxy(proxy.HTTP), s.HTTPProxy)
	return all
}

// checkListeners returns all forwards and proxies that must not listen where they
// would, or cannot: then one of two has the port, and the places of both are told.
func (s *Settings) checkListeners() error {
	var errs []error
	var specs []proxy.Spec
	all := s.allListeners()
	for _, l := range all {
		specs = append(specs, l.Spec)
		if err := s.CheckExposure(l.Spec); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.from, err))
		}
	}
	for _, p := range proxy.Clashes(specs) {
		a, b := all[p[0]], all[p[1]]
		where := a.from
		if b.from != where {
			where += " and " + b.from
		}
		errs = append(errs, fmt.Errorf("%s: %v and %v are for the same port: choose another one for one of them", where, a, b))
	}
	return errors.Join(errs...)
}

// CheckExposure refuses a proxy that whoever reaches this machine could use (SVC-168).
func (s *Settings) CheckExposure(spec proxy.Spec) error {
	isProxy := spec.Kind == proxy.SOCKS || spec.Kind == proxy.HTTP || spec.Kind == proxy.Mixed
	if !isProxy || s.ProxyAuth != "" || s.ProxyOpen || onlyLocal(spec.Listen) {
		return nil
	}
	return fmt.Errorf("%v: others on the network could use this proxy: listen on 127.0.0.1, ask for a password with --proxy-auth file:PATH, or permit it with --proxy-open", spec)
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

// oneProxy returns what parses the address of a proxy of one kind.
func oneProxy(kind proxy.Kind) func(string) ([]proxy.Spec, error) {
	return func(text string) ([]proxy.Spec, error) {
		spec, err := proxy.ParseProxy(kind, text)
		if err != nil {
			return nil, err
		}
		return []proxy.Spec{spec}, nil
	}
}
