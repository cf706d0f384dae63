package main

import (
	"context"
	"errors"
	"os"
	"os/exec"

	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/host/iface"
	"github.com/seed94491740/tsnode/vpn"
)

// A managedDevice is the TUN device that a manager has made for a tunnel (VPN-56).
type managedDevice struct {
	file *os.File
	set  *iface.Interface
	now  vpn.NetworkSettings // in force; Apply's own
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
	return &managedDevice{file: file, set: set}, nil
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

// apply sets the interface up as the tunnel asks; without a device all that it asks
// for is fine.
func (d *managedDevice) apply(_ context.Context, s vpn.NetworkSettings) error {
	if d == nil {
		return nil
	}
	merged := d.now.Merge(s)
	if err := d.set.Apply(interfaceSettings(merged)); err != nil {
		return err
	}
	d.now = merged
	return nil
}

// close undoes what was set up, and lets the device go.
func (d *managedDevice) close() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.set.Close(), d.file.Close())
}
