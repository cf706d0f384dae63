// Package netns makes network namespaces and joins them by veth pairs, with
// nothing but the kernel: no program has to be installed. Namespaces have no
// names; the kernel takes them back when the process and its children have
// ended, however they end.
//
// It is for measuring: what lies between two namespaces is one cable of the
// kernel's, a TUN device in each and a program in between, or a gateway that
// translates. Gateways of other kinds are interop/ground's.
package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Namespace is a network of its own.
type Namespace struct {
	name string
	fd   *os.File
}

// New makes a namespace with nothing but its loopback interface, up. name is for
// error messages.
func New(name string) (*Namespace, error) {
	n := &Namespace{name: name}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w (root is needed)", err)
		}
		n.fd, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	err = errors.Join(
		// Link-local addresses would be a second way between the ends of a cable.
		n.write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
		// What one connection has learned of a path is not for the next.
		n.write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1"),
		n.Up("lo"),
	)
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close lets the namespace go; it lives on while a process is in it.
func (n *Namespace) Close() { n.fd.Close() }

// Start starts a program inside the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// do runs f on a thread inside the namespace.
func (n *Namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.fd.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it, so that no other goroutine ever
// sees the namespace the thread has changed to.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// write writes to a file below /proc/sys/net, which shows each thread the
// settings of its own namespace. Settings that this kernel lacks are left out.
func (n *Namespace) write(file, value string) error {
	err := n.do(func() error { return os.WriteFile(file, []byte(value), 0o644) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// An End is one end of a cable.
type End struct {
	Namespace *Namespace
	Interface string
	Addr      netip.Prefix // IPv4
}

// Join lays a cable between two namespaces; it is up.
func Join(a, b End) error {
	err := a.Namespace.do(func() error { return request(newVeth(a.Interface, b.Interface, int(b.Namespace.fd.Fd()))) })
	if err != nil {
		return fmt.Errorf("cable between %s and %s: %w", a.Namespace.name, b.Namespace.name, err)
	}
	for _, e := range []End{a, b} {
		if err := errors.Join(e.Namespace.AddAddr(e.Interface, e.Addr), e.Namespace.Up(e.Interface)); err != nil {
			return err
		}
	}
	return nil
}

// Up switches an interface on.
func (n *Namespace) Up(name string) error { return n.change("switch on", name, setLink(unix.IFF_UP)) }

// Down switches an interface off, and the cable with it. Its address stays.
func (n *Namespace) Down(name string) error { return n.change("switch off", name, setLink(0)) }

// AddAddr gives an interface an address.
func (n *Namespace) AddAddr(name string, p netip.Prefix) error {
	return n.change(fmt.Sprintf("add address %v to", p), name, addAddr(p))
}

// DefaultRoute leads everything else to a gateway at an interface.
func (n *Namespace) DefaultRoute(name string, gateway netip.Addr) error {
	return n.change(fmt.Sprintf("route to %v at", gateway), name, addDefaultRoute(gateway))
}

// change sends a request about an interface.
func (n *Namespace) change(what, name string, about func(index int) message) error {
	err := n.do(func() error {
		index, err := indexOf(name)
		if err != nil {
			return err
		}
		return request(about(index))
	})
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w", n.name, what, name, err)
	}
	return nil
}
