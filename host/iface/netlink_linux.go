package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/host"
)

// answerTime bounds the kernel's answer, which comes at once, in seconds.
const answerTime = 5

// A conn asks the kernel for changes, one after another (rtnetlink(7)).
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTime})
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("netlink", err)
	}
	return &conn{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// do takes a step. One that somebody has taken before is no error.
func (c *conn) do(s step, i *Interface) error {
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_REPLACE)
	if s.kind == addRule {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	typ := map[kind]uint16{
		setLink: unix.RTM_NEWLINK, addAddr: unix.RTM_NEWADDR, addThrow: unix.RTM_NEWROUTE, addRoute: unix.RTM_NEWROUTE, addRule: unix.RTM_NEWRULE,
	}[s.kind]
	if s.kind == setLink {
		flags = 0
	}
	err := c.ask(typ, flags, s.body(i))
	if s.kind == addRule && errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// undo takes a step back. What is gone already, with the interface perhaps, is no
// error.
func (c *conn) undo(s step, i *Interface) error {
	var typ uint16
	switch s.kind {
	case setLink:
		return nil // it stays on: what has no address carries nothing
	case addAddr:
		typ = unix.RTM_DELADDR
	case addThrow, addRoute:
		typ = unix.RTM_DELROUTE
	case addRule:
		typ = unix.RTM_DELRULE
	}
	err := c.ask(typ, 0, s.body(i))
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENODEV} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// ask sends one request and waits until it is done.
func (c *conn) ask(typ, flags uint16, body []byte) error {
	c.seq++
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	binary.NativeEndian.PutUint32(b[8:], c.seq)
	if err := unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink", err)
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("netlink", err)
		}
		if done, err := outcome(c.buf[:n], c.seq); done {
			return err
		}
	}
}

// outcome reads an answer: struct nlmsghdr, and in a message of type NLMSG_ERROR
// the negative number of an error, 0 for success (netlink(7)).
func outcome(b []byte, seq uint32) (done bool, err error) {
	if len(b) < unix.NLMSG_HDRLEN+4 {
		return true, fmt.Errorf("netlink: an answer of %d bytes", len(b))
	}
	if binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(b[8:]) != seq {
		return false, nil
	}
	if code := -int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
		return true, syscall.Errno(code)
	}
	return true, nil
}

// body is the message of a step without its header: a structure, then attributes.
func (s step) body(i *Interface) []byte {
	family := byte(unix.AF_INET)
	if s.net.Addr().Is6() {
		family = unix.AF_INET6
	}
	switch s.kind {
	case setLink:
		b := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(b[4:], uint32(i.index))
		binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)  // flags
		binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP) // which of them change
		if s.mtu > 0 {
			b = appendNumber(b, unix.IFLA_MTU, uint32(s.mtu))
		}
		return b
	case addAddr:
		b := make([]byte, unix.SizeofIfAddrmsg)
		b[0], b[1] = family, byte(s.net.Bits())
		binary.NativeEndian.PutUint32(b[4:], uint32(i.index))
		b = appendAddr(b, unix.IFA_LOCAL, s.net.Addr())
		return appendAddr(b, unix.IFA_ADDRESS, s.net.Addr())
	case addRule:
		const invert = 2                    // FIB_RULE_INVERT: all but those with the mark
		b := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr has the same layout
		b[0], b[7] = family, unix.FR_ACT_TO_TBL
		binary.NativeEndian.PutUint32(b[8:], invert)
		b = appendNumber(b, unix.FRA_PRIORITY, priority)
		b = appendNumber(b, unix.FRA_FWMARK, host.TunnelMark)
		b = appendNumber(b, unix.FRA_FWMASK, host.TunnelMask)
		return appendNumber(b, unix.FRA_TABLE, tableOf(i.name))
	}
	return s.route(family, i)
}

// route is the body of a route: struct rtmsg and its attributes.
func (s step) route(family byte, i *Interface) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = family, byte(s.net.Bits())
	b[5], b[6], b[7] = unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	if s.kind == addThrow {
		b[6], b[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_THROW
	}
	b = appendAddr(b, unix.RTA_DST, s.net.Addr())
	b = appendNumber(b, unix.RTA_TABLE, tableOf(i.name))
	if s.kind == addRoute {
		b = appendNumber(b, unix.RTA_OIF, uint32(i.index))
	}
	return b
}

func appendNumber(b []byte, typ uint16, n uint32) []byte {
	return appendAttribute(b, typ, binary.NativeEndian.AppendUint32(nil, n))
}

func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	return appendAttribute(b, typ, a.AsSlice())
}

// appendAttribute appends a struct rtattr and its value, whose length is a
// multiple of what they are aligned to.
func appendAttribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(b, value...)
}
