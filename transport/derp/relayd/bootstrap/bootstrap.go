// Package bootstrap is a relay's /bootstrap-dns: it tells clients that cannot
// resolve names the addresses of a few, such as the control server's
// (DERP-104, DERP-105).
//
// It owns the names, their addresses and who is told of them. The listener is
// the relay's.
//
// Source: doc/protocol/derp.md section 10.4.
package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	refreshEvery   = 10 * time.Minute // DERP-104
	refreshTimeout = time.Minute      // for all names, which are asked for at once; DERP-104
)

// A Config says which names a Service tells.
type Config struct {
	// Names are told to everyone.
	Names []string

	// Unpublished names are told only to those who ask for them by name. An entry
	// may be "name/txtname": then the TXT record of txtname, a number from 0 to
	// 100, is the percentage of the clients that are told; no record is 0.
	Unpublished []string

	Resolver Resolver     // nil is the host's
	Logger   *slog.Logger // nil discards
}

// A Resolver looks names up.
type Resolver interface {
	// LookupIP returns the IPv4 and IPv6 addresses of a name.
	LookupIP(ctx context.Context, name string) ([]netip.Addr, error)
	// LookupTXT returns the TXT records of a name.
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// system is the resolver of the host.
type system struct{ host.Network }

func (s system) LookupIP(ctx context.Context, name string) ([]netip.Addr, error) {
	return s.LookupNetIP(ctx, "ip", name)
}

func (system) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return net.DefaultResolver.LookupTXT(ctx, name)
}

// A Service keeps the addresses of its names and tells them over HTTP.
type Service struct {
	published   []entry
	unpublished map[string]entry // by name
	resolver    Resolver
	log         *slog.Logger

	answers  *actor.Cell[*answers]
	counters counters
}

// An entry is one configured name.
type entry struct {
	name string
	txt  string // the name whose TXT record is the percentage; empty: everyone
}

// New returns a service that knows no address until Serve runs.
func New(c Config) (*Service, error) {
	s := &Service{unpublished: make(map[string]entry), resolver: c.Resolver, log: c.Logger, answers: actor.NewCell(noAnswers)}
	if s.resolver == nil {
		s.resolver = system{host.OS{}}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, name := range c.Names {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("bootstrap: published name %q: %w", name, err)
		}
		s.published = append(s.published, entry{name: name})
	}
	for _, text := range c.Unpublished {
		name, txt, rollout := strings.Cut(text, "/")
		err := checkName(name)
		if rollout {
			err = cmp.Or(err, checkName(txt))
		}
		if err != nil {
			return nil, fmt.Errorf("bootstrap: unpublished name %q: %w; want name or name/txtname", text, err)
		}
		s.unpublished[name] = entry{name, txt}
	}
	return s, nil
}

// checkName refuses what a resolver could only fail on.
func checkName(name string) error {
	switch _, err := netip.ParseAddr(name); {
	case name == "":
		return errors.New("empty")
	case len(name) > maxName:
		return fmt.Errorf("longer than %d characters", maxName)
	case err == nil:
		return errors.New("an address, which needs no resolving")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:,\"\\", r) }):
		return errors.New("not a host name (international names in their xn-- form)")
	}
	return nil
}

// String names the actor.
func (*Service) String() string { return "bootstrap.Service" }

// Serve resolves the names, now and every ten minutes, until ctx ends.
func (s *Service) Serve(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		if err := s.refresh(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refresh replaces all answers by fresh ones.
func (s *Service) refresh(ctx context.Context) error {
	inTime, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	g := actor.NewGroup(inTime)
	var all []*lookup
	ask := func(e entry, unpublished bool) {
		l := &lookup{entry: e, unpublished: unpublished, service: s}
		all = append(all, l)
		g.Go(l.run)
	}
	for _, e := range s.published {
		ask(e, false)
	}
	for _, e := range s.unpublished {
		ask(e, true)
	}
	if err := g.Wait(); err != nil && inTime.Err() == nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.answers.Store(newAnswers(all))
	return nil
}
