package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
)

// A reloader is an actor that reads the configuration again on SIGHUP, and applies
// what has changed.
type reloader struct {
	*foreground
	hup <-chan os.Signal
}

// String names the actor.
func (*reloader) String() string { return "reloader" }

// Serve waits for signals until ctx ends.
func (r *reloader) Serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.hup:
			r.reload(ctx)
		}
	}
}

// reload applies the configuration as it is now. What is wrong with it changes
// nothing.
func (r *reloader) reload(ctx context.Context) {
	changed, err := r.apply(ctx)
	if err != nil {
		fmt.Fprintf(r.people, "tsnode: the configuration was not read again, all stays as it was: %v\n", err)
		return
	}
	live, later := settings.Split(changed)
	switch {
	case len(changed) == 0:
		fmt.Fprintln(r.people, "tsnode: the configuration was read again: nothing has changed")
	case len(live) > 0:
		fmt.Fprintf(r.people, "tsnode: the configuration was read again, changed: %s\n", strings.Join(live, ", "))
	}
	if len(later) > 0 {
		fmt.Fprintf(r.people, "tsnode: these changes of the configuration need a restart: %s\n", strings.Join(later, ", "))
	}
}

// apply reads the settings and puts those in force that can be. It returns which
// have changed.
func (r *reloader) apply(ctx context.Context) (changed []string, err error) {
	if r.config.path() == "" {
		return nil, errNoConfig
	}
	next, err := r.config.read()
	if err != nil {
		return nil, err
	}
	old := r.settings.Get()
	now, err := old.WithLive(next)
	if err != nil {
		return nil, err
	}
	specs, err := forwardsOf(now)
	if err != nil {
		return nil, err
	}
	changed = old.Changed(next)
	if err := r.node.EditPreferences(func(p *node.Preferences) { setPreferences(p, changed, now) }); err != nil {
		return nil, err
	}
	if err := r.forwards.Load().Apply(ctx, specs); err != nil {
		fmt.Fprintf(r.people, "tsnode: %v\n", err)
	}
	r.level.Set(logLevel(now.Verbose))
	r.settings.Store(now)
	return changed, nil
}

// preferences set those of a node to what settings say, by name of the setting.
var preferences = map[string]func(*node.Preferences, *settings.Settings){
	"hostname": func(p *node.Preferences, s *settings.Settings) { p.Hostname = s.Hostname },
	"accept-routes": func(p *node.Preferences, s *settings.Settings) {
		p.AcceptRoutes, p.AcceptRoutesFrom = s.AcceptRoutes, s.AcceptRoutesFrom
	},
	"accept-dns":                 func(p *node.Preferences, s *settings.Settings) { p.IgnoreDNS = !s.AcceptDNS },
	"exit-node":                  func(p *node.Preferences, s *settings.Settings) { p.ExitNode = s.ExitNode },
	"exit-node-allow-lan-access": func(p *node.Preferences, s *settings.Settings) { p.ExitNodeAllowLANAccess = s.ExitNodeAllowLANAccess },
	"advertise-routes":           func(p *node.Preferences, s *settings.Settings) { p.AdvertiseRoutes = s.AdvertiseRoutes },
	"advertise-exit-node":        func(p *node.Preferences, s *settings.Settings) { p.AdvertiseExitNode = s.AdvertiseExitNode },
	"shields-up":                 func(p *node.Preferences, s *settings.Settings) { p.ShieldsUp = s.ShieldsUp },
}

// setPreferences sets those that have changed. What tsnode set has changed since,
// and the configuration has not, stays.
func setPreferences(p *node.Preferences, changed []string, s *settings.Settings) {
	for _, name := range changed {
		if set, ok := preferences[name]; ok {
			set(p, s)
		}
	}
}
