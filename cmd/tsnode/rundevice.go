package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/host/iface"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/vpn"
)

// Pauses after a failure to set up an interface.
const (
	interfaceRetry    = time.Second // after the first failure; doubles
	interfaceRetryMax = time.Minute
)

// checkStackless refuses what a node on a TUN device cannot do, by its name: it has
// no stack for connections of its own.
func checkStackless(s *settings.Settings) error {
	if s.TUN == "" {
		return nil
	}
	for name, set := range map[string]bool{
		"local": len(s.Local) > 0, "remote": len(s.Remote) > 0, "stdio": s.Stdio != "", "socks5": len(s.SOCKS5) > 0, "http-proxy": len(s.HTTPProxy) > 0,
	} {
		if set {
			return &usageError{fmt.Errorf("%s with --tun: on a TUN device the programs of this machine use the tailnet themselves; leave out one of the two", s.From(name))}
		}
	}
	return nil
}

// openDevice puts the node on the TUN device that the settings name, if they name
// one.
func (f *foreground) openDevice(s *settings.Settings) error {
	if s.TUN == "" {
		return nil
	}
	file, err := tun.Create(s.TUN)
	if err != nil {
		return err
	}
	set, err := iface.Open(s.TUN)
	if err != nil {
		file.Close()
		return err
	}
	f.node.TUN = tun.On(file)
	f.device = &deviceKeeper{node: &tunnelNode{Node: f.node}, file: file, set: set, name: s.TUN, people: f.people, log: f.log}
	return nil
}

// A deviceKeeper keeps the interface of a node's TUN device set up as the netmap
// asks for, or tells an administrator how to.
type deviceKeeper struct {
	node   *tunnelNode
	file   *os.File
	set    *iface.Interface
	name   string
	people io.Writer
	log    *slog.Logger
	told   []string // commands that were printed last
}

// Serve follows the netmap until ctx ends. What it has set up stays until close.
func (k *deviceKeeper) Serve(ctx context.Context) error {
	var inForce iface.Settings
	for retry := interfaceRetry; ; {
		want, changed := k.want(ctx)
		var err error
		if !reflect.DeepEqual(want, inForce) {
			err = k.apply(want)
		}
		if err != nil {
			k.log.Error("the interface is not set up", "interface", k.name, "retry", retry, "err", err)
			if err := actor.Sleep(ctx, retry); err != nil {
				return err
			}
			retry = min(2*retry, interfaceRetryMax)
			continue
		}
		inForce, retry = want, interfaceRetry
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// want returns the settings that the netmap asks for, and a channel that is closed
// when there may be others.
func (k *deviceKeeper) want(ctx context.Context) (iface.Settings, <-chan struct{}) {
	nm, changed := k.node.Netmap()
	if nm == nil || nm.Self == nil {
		return iface.Settings{}, changed
	}
	return interfaceSettings(vpn.SettingsFor(nm, k.node.Accepts, k.node.Excluded(ctx, nm))), changed
}

// apply sets the interface up. That this user may not is no error: an administrator
// is told how to.
func (k *deviceKeeper) apply(s iface.Settings) error {
	err := k.set.Apply(s)
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	if commands := iface.Commands(k.name, s); !reflect.DeepEqual(commands, k.told) {
		k.told = commands
		fmt.Fprintf(at(slog.LevelWarn, k.people), "tsnode: this user may not set up %s (CAP_NET_ADMIN is needed); as root, run\n  %s\n", k.name, strings.Join(commands, "\n  "))
	}
	return nil
}

// close undoes what was set up, and lets the device go; nil has none.
func (k *deviceKeeper) close() {
	if k == nil {
		return
	}
	if err := k.set.Close(); err != nil && !errors.Is(err, os.ErrPermission) {
		k.log.Warn("the interface is not as it was", "interface", k.name, "err", err)
	}
	k.file.Close()
}

// interfaceSettings are the settings of an interface as a tunnel asks for them.
// What resolves the machine's names is left to its administrator.
func interfaceSettings(n vpn.NetworkSettings) iface.Settings {
	s := iface.Settings{MTU: n.MTU}
	for _, f := range []*vpn.FamilySettings{n.IPv4, n.IPv6} {
		if f != nil {
			s.Addrs = append(s.Addrs, f.Addrs...)
			s.Routes = append(s.Routes, f.Included...)
			s.Excluded = append(s.Excluded, f.Excluded...)
		}
	}
	return s
}
