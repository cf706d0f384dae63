package settings

import (
	"errors"
	"fmt"

	"github.com/seed94491740/tsnode/proxy"
)

// checkPorts returns all forwards and proxies that want a port which another one has,
// with the places of both: one of the two could only lose.
func (s *Settings) checkPorts() error {
	var all []proxy.Spec
	var places []string
	take := func(setting string, parse func(string) ([]proxy.Spec, error), texts []string) {
		for _, text := range texts {
			some, _ := parse(text) // which the setting has checked
			for _, spec := range some {
				all, places = append(all, spec), append(places, s.From(setting))
			}
		}
	}
	take("local", proxy.ParseLocal, s.Local)
	take("remote", proxy.ParseRemote, s.Remote)
	take("socks5", oneProxy(proxy.SOCKS), s.SOCKS5)
	take("http-proxy", oneProxy(proxy.HTTP), s.HTTPProxy)
	var errs []error
	for _, p := range proxy.Clashes(all) {
		a, b := p[0], p[1]
		where := places[a]
		if places[b] != where {
			where += " and " + places[b]
		}
		errs = append(errs, fmt.Errorf("%s: %v and %v are for the same port: choose another one for one of them", where, all[a], all[b]))
	}
	return errors.Join(errs...)
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
