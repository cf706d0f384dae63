package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"time"

	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/host/iface"
	"github.com/seed94491740/tsnode/vpn"
)

// A managedDevice is the TUN device that a manager has made for a tunnel (VPN-56).
type managedDevice struct {
	file     *os.File
	set      setter
	resolver hook
	now      vpn.NetworkSettings // in force; Apply's own
}

// A setter is an interface of the operating system.
type setter interface {
	Apply(iface.Settings) error
	Close() error
}

// A hook is the program that sets up the resolver of a machine for an interface, or
// noResolver.
type hook struct{ program, device string }

// noResolver leaves the machine's resolver to its administrator.
const noResolver = "none"

// apply has the program read the settings as JSON; null when they are to be undone.
func (h hook) apply(ctx context.Context, s *vpn.DNSSettings) error {
	if h.program == noResolver {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.program, h.device)
	cmd.Stdin, cmd.WaitDelay = bytes.NewReader(text), time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("--resolver %s: %w: %.200s", h.program, err, bytes.TrimSpace(said))
	}
	return nil
}

// resolverTimeout is how long the program may take: the tunnel waits 10 s for all.
const resolverTimeout = 8 * time.Second

// checkDevice refuses flags that do not belong together.
func (o *tunnelOptions) checkDevice() error {
	switch {
	case o.tun != "" && o.resolver == "":
		return &usageError{errors.New("--tun needs --resolver: a program that sets up this machine's resolver as the tunnel asks, or none to leave it as it is")}
	case o.tun == "" && o.resolver != "":
		return &usageError{errors.New("--resolver without --tun: without a device the tunnel asks for no DNS")}
	}
	return nil
}

// makeDevice makes the device that the flags name; nil without one.
func (o *tunnelOptions) makeDevice() (*managedDevice, error) {
	if o.tun == "" {
		return nil, nil
	}
	file, err := tun.Create(o.tun)
	if err != nil {
		return nil, err
	}
	set, err := iface.Open(o.tun)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &managedDevice{file: file, set: set, resolver: hook{o.resolver, o.tun}}, nil
}

// passTo has a process that is not started yet inherit the device, and returns the
// number that it has there; 0 without a device (VPN-40).
func (d *managedDevice) passTo(cmd *exec.Cmd) (descriptor int) {
	const first = 3 // of exec.Cmd.ExtraFiles
	if d == nil {
		return 0
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, d.file)
	return first + len(cmd.ExtraFiles) - 1
}

// apply sets the interface and the resolver up as the tunnel asks, both or none
// (VPN-50); without a device all that it asks for is fine.
func (d *managedDevice) apply(ctx context.Context, s vpn.NetworkSettings) error {
	if d == nil {
		return nil
	}
	merged := d.now.Merge(s)
	if err := d.set.Apply(interfaceSettings(merged)); err != nil {
		return err
	}
	if !reflect.DeepEqual(d.now.DNS, merged.DNS) {
		if err := d.resolve(ctx, merged.DNS); err != nil {
			return errors.Join(err, d.set.Apply(interfaceSettings(d.now)))
		}
	}
	d.now = merged
	return nil
}

func (d *managedDevice) resolve(ctx context.Context, s *vpn.DNSSettings) error {
	ctx, cancel := context.WithTimeout(ctx, resolverTimeout)
	defer cancel()
	return d.resolver.apply(ctx, s)
}

// close undoes what was set up, and lets the device go.
func (d *managedDevice) close(ctx context.Context) (err error) {
	if d == nil {
		return nil
	}
	if d.now.DNS != nil {
		err = d.resolve(ctx, nil)
	}
	return errors.Join(err, d.set.Close(), d.file.Close())
}
