package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// A reloader is an actor that reads the configuration again on SIGHUP, and applies
// what has changed. It also opens the forwards that could not be at the start.
type reloader struct {
	*foreground
	addressed bool // the node knows its addresses
}

// String names the actor.
func (*reloader) String() string { return "reloader" }

// Serve waits for signals until ctx ends, or a forward cannot listen that must.
func (r *reloader) Serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.hup:
			r.reload(ctx)
		case <-r.running:
			if err := r.openRest(ctx); err != nil {
				return err
			}
		}
	}
}

// openRest opens what listens on an address of the node, once that has some: only then
// it is known whether that can be.
func (r *reloader) openRest(ctx context.Context) error {
	if r.addressed {
		return nil
	}
	r.addressed = true
	s := r.settings.Get()
	specs, err := forwardsOf(s)
	if err != nil {
		return err
	}
	_, rest := atOnce(specs)
	if len(rest) == 0 {
		return nil
	}
	set := r.forwards.Load()
	err = set.Apply(ctx, specs)
	if err != nil && s.ExitOnForwardFailure {
		return err
	}
	r.tellForwards(statusOf(set, rest))
	return nil
}

// atOnce tells of forwards which can listen at once, and which only when the node
// knows its addresses: those that name one.
func atOnce(specs []proxy.Spec) (now, later []proxy.Spec) {
	for _, s := range specs {
		host, _, _ := net.SplitHostPort(s.Listen)
		a, err := netip.ParseAddr(host)
		if s.Kind == proxy.Remote && err == nil && !a.IsUnspecified() {
			later = append(later, s)
			continue
		}
		now = append(now, s)
	}
	return now, later
}

// reload applies the configuration as it is now. What is wrong with it changes
// nothing.
func (r *reloader) reload(ctx context.Context) {
	if r.draining.Load() {
		fmt.Fprintln(at(slog.LevelWarn, r.people), "tsnode: the configuration is not read again: this process is about to end")
		return
	}
	changed, err := r.apply(ctx)
	if err != nil {
		fmt.Fprintf(at(slog.LevelError, r.people), "tsnode: the configuration was not read again, all stays as it was: %v\n", err)
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
		fmt.Fprintf(at(slog.LevelWarn, r.people), "tsnode: these changes of the configuration need a restart: %s\n", strings.Join(later, ", "))
	}
	r.warn(r.settings.Get())
}

// apply reads the settings and puts those in force that can be. It returns which
// have changed.
func (r *reloader) apply(ctx context.Context) (changed []string, err error) {
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
	if now.Warnings = next.Warnings; len(next.Beaten(old)) > 0 {
		now.Warnings = append(now.Warnings, "the environment or a flag beats what has changed in the file: "+strings.Join(next.Beaten(old), ", "))
	}
	changed = old.Changed(next)
	if err := r.node.EditPreferences(func(p *node.Preferences) { setPreferences(p, changed, now) }); err != nil {
		return nil, err
	}
	had, err := forwardsOf(old)
	if err != nil {
		return nil, err
	}
	set := r.forwards.Load()
	if err := set.Apply(ctx, specs); err != nil {
		fmt.Fprintf(at(slog.LevelError, r.people), "tsnode: %v\n", err)
	}
	r.tellForwards(statusOf(set, notAmong(specs, had)))
	r.level.Set(logLevel(now.Verbose))
	r.settings.Store(now)
	return changed, nil
}

// notAmong returns those of specs that had does not have, in a slice of their own.
func notAmong(specs, had []proxy.Spec) (fresh []proxy.Spec) {
	for _, s := range specs {
		if !slices.Contains(had, s) {
			fresh = append(fresh, s)
		}
	}
	return fresh
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
