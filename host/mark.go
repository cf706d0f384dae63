package host

import (
	"net"
	"syscall"
)

// TunnelMark and TunnelMask are the mark of the sockets of a node whose tailnet is
// a network interface of the same machine: what they send must not go into that
// interface (VPN-51). The rules of iface set it up so, and those of a front end
// have to.
const (
	TunnelMark = 0x740000
	TunnelMask = 0xff0000 // the other bits are for others
)

// marked returns a control that puts the mark on a socket, after next, if there is
// one.
func (o OS) marked(next control) control {
	if o.Mark == 0 {
		return next
	}
	return func(network, address string, c syscall.RawConn) error {
		if next != nil {
			if err := next(network, address, c); err != nil {
				return err
			}
		}
		return setMark(c, o.Mark)
	}
}

// mark puts the mark on a socket that is open.
func (o OS) mark(c syscall.Conn) error {
	if o.Mark == 0 {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return setMark(raw, o.Mark)
}

// HasInterface reports whether the machine, or rather the network that this
// process is in, has an interface with a name, be it up or not.
func HasInterface(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}
