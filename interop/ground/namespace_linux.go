package ground

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/host"
)

// A Namespace is a network of its own: interfaces, routes, address translation
// and sockets. Its methods may be called from any goroutine.
type Namespace struct {
	name string
	fd   netns.NsHandle
	net  *netlink.Handle // acts inside
}

// newNamespace makes a namespace with nothing but its loopback interface, up.
// name is for error messages.
func newNamespace(name string) (*Namespace, error) {
	n := &Namespace{name: name}
	err := onThread(func() (err error) {
		n.fd, err = netns.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w (root is needed)", name, err)
	}
	if n.net, err = netlink.NewHandleAt(n.fd); err != nil {
		n.fd.Close()
		return nil, fmt.Errorf("namespace %s: netlink: %w", name, err)
	}
	// No host has IPv6 addresses: those of the link-local kind would give a LAN
	// a second way that no gateway controls.
	err = errors.Join(n.sysctl("ipv6/conf/all/disable_ipv6", "1"), n.up("lo"))
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close lets the namespace go; it lives on while a process or socket is in it.
func (n *Namespace) Close() {
	n.net.Close()
	n.fd.Close()
}

// String returns the namespace's name.
func (n *Namespace) String() string { return n.name }

// Do runs f on a thread inside the namespace: sockets that f makes belong to it
// for good, and may be used from anywhere. f must not start goroutines that
// count on being inside.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		return f()
	})
}

// Start starts a program inside the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// onThread runs f on a thread that ends with it, so that no other goroutine
// ever sees the namespace the thread has changed to.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// sysctl sets a setting below /proc/sys/net, which shows each thread those of
// its own namespace.
func (n *Namespace) sysctl(path, value string) error {
	err := n.Do(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644) })
	if err != nil && errors.Is(err, os.ErrNotExist) {
		return nil // this kernel has no such thing to be switched off or on
	}
	return err
}

// up switches an interface on.
func (n *Namespace) up(name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.net.LinkSetUp(l); err != nil {
		return fmt.Errorf("%s: switch %s on: %w", n.name, name, err)
	}
	return nil
}

func (n *Namespace) link(name string) (netlink.Link, error) {
	l, err := n.net.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: interface %s: %w", n.name, name, err)
	}
	return l, nil
}

// addAddr gives an interface an address.
func (n *Namespace) addAddr(name string, p netip.Prefix) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.net.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("%s: add address %v to %s: %w", n.name, p, name, err)
	}
	return nil
}

// delAddr takes an address from an interface, and its routes with it.
func (n *Namespace) delAddr(name string, p netip.Prefix) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.net.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("%s: take address %v from %s: %w", n.name, p, name, err)
	}
	return nil
}

// route leads a prefix to an interface, by way of a gateway if there is one.
func (n *Namespace) route(name string, to netip.Prefix, gateway netip.Addr) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to)}
	if gateway.IsValid() {
		r.Gw = gateway.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := n.net.RouteReplace(r); err != nil {
		return fmt.Errorf("%s: route %v to %s: %w", n.name, to, name, err)
	}
	return nil
}

// firewall changes the namespace's nf_tables, all at once.
func (n *Namespace) firewall(change func(*nftables.Conn)) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.fd)))
	if err != nil {
		return fmt.Errorf("%s: nf_tables: %w", n.name, err)
	}
	change(c)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("%s: nf_tables: %w", n.name, err)
	}
	return nil
}

// Network returns the namespace as a node or a server sees its host.
func (n *Namespace) Network() host.Network { return inside{Network: host.OS{}, ns: n} }

// inside is host.OS with its sockets in a namespace.
type inside struct {
	host.Network
	ns *Namespace
}

func (i inside) ListenUDP(ctx context.Context, family string, port uint16) (c host.UDPConn, err error) {
	err = i.ns.Do(func() (err error) { c, err = i.Network.ListenUDP(ctx, family, port); return err })
	return c, err
}

func (i inside) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = i.ns.Do(func() (err error) { l, err = i.Network.Listen(ctx, network, address); return err })
	return l, err
}

func (i inside) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = i.ns.Do(func() (err error) { c, err = i.Network.Dial(ctx, network, address); return err })
	return c, err
}

func (i inside) Interfaces() (all []host.Interface, err error) {
	err = i.ns.Do(func() (err error) { all, err = i.Network.Interfaces(); return err })
	return all, err
}

func (i inside) DefaultRoute() (r host.Route, err error) {
	err = i.ns.Do(func() (err error) { r, err = i.Network.DefaultRoute(); return err })
	return r, err
}

func (i inside) Watch(ctx context.Context, changed func()) error {
	return i.ns.Do(func() error { return i.Network.Watch(ctx, changed) })
}

func (i inside) Echo(ctx context.Context, to netip.Addr, payload []byte) (d time.Duration, err error) {
	err = i.ns.Do(func() (err error) { d, err = i.Network.Echo(ctx, to, payload); return err })
	return d, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Supported returns nil where grounds can be built, and otherwise what is
// missing.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	f, err := os.OpenFile(tunDevice, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("links need TUN devices: %w", err)
	}
	return f.Close()
}
