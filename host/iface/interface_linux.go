package iface

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
)

// An Interface is one that this process sets up. It may be used from any goroutine.
type Interface struct {
	name  string
	index int

	mu      sync.Mutex
	inForce []step // taken and not undone, in order
}

// Open returns the interface of a name, in the network that the calling thread is
// in. It changes nothing yet.
func Open(name string) (*Interface, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return &Interface{name: name, index: i.Index}, nil
}

// Apply makes the settings those of the interface: what differs from the ones
// before is undone and done. When that fails, the ones before are in force again,
// as far as they can be.
func (i *Interface) Apply(s Settings) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	before := slices.Clone(i.inForce)
	if err := i.change(c, s.steps(hasIPv6(i.name))); err != nil {
		return errors.Join(err, i.change(c, before))
	}
	return nil
}

// Close undoes what Apply has done, but for the interface's being on.
func (i *Interface) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return i.change(c, nil)
}

// change goes from the steps in force to those that are wanted. i.mu is held.
func (i *Interface) change(c *conn, want []step) error {
	var failed error
	for _, s := range slices.Backward(missing(i.inForce, want)) {
		if err := c.undo(s, i); err != nil {
			failed = errors.Join(failed, fmt.Errorf("undo %q: %w", s.command(i.name), err))
		}
		i.inForce = slices.DeleteFunc(i.inForce, func(have step) bool { return have == s })
	}
	for _, s := range missing(want, i.inForce) {
		if err := c.do(s, i); err != nil {
			return errors.Join(failed, fmt.Errorf("%q: %w", s.command(i.name), err))
		}
		i.inForce = append(i.inForce, s)
	}
	return failed
}

// hasIPv6 reports whether an interface can have addresses of IPv6.
func hasIPv6(name string) bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}
