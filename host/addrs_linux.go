package host

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// addresses returns the addresses of all interfaces by the interfaces' numbers.
// It asks the kernel once: net.Interface.Addrs asks for all addresses of the
// host each time, which takes half a second for the 400 interfaces of a host
// full of containers.
func addresses([]net.Interface) (map[int][]netip.Prefix, error) {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("netlink", err)
	}
	return parseAddresses(dump)
}

var errNetlink = errors.New("netlink: a message is not as long as it says")

// parseAddresses reads the dump of addresses of rtnetlink(7).
func parseAddresses(dump []byte) (map[int][]netip.Prefix, error) {
	all := make(map[int][]netip.Prefix)
	for len(dump) > 0 {
		typ, body, rest, ok := nextMessage(dump)
		if !ok {
			return nil, errNetlink
		}
		dump = rest
		if typ != unix.RTM_NEWADDR || len(body) < unix.SizeofIfAddrmsg {
			continue
		}
		index := int(binary.NativeEndian.Uint32(body[4:])) // ifa_index
		if p, ok := parseAddress(body); ok {
			all[index] = append(all[index], p)
		}
	}
	return all, nil
}

// parseAddress reads struct ifaddrmsg and its attributes. It reports whether
// that is an address which the kernel uses.
func parseAddress(b []byte) (p netip.Prefix, ok bool) {
	bits, flags := int(b[1]), uint32(b[2]) // ifa_prefixlen, ifa_flags
	var local, address netip.Addr
	for b = b[unix.SizeofIfAddrmsg:]; len(b) > 0; {
		typ, value, rest, ok := nextAttribute(b)
		if !ok {
			return netip.Prefix{}, false
		}
		b = rest
		switch {
		case typ == unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case typ == unix.IFA_ADDRESS: // of the other end, where a link between two has a local one
			address, _ = netip.AddrFromSlice(value)
		case typ == unix.IFA_FLAGS && len(value) >= 4: // all of them
			flags = binary.NativeEndian.Uint32(value)
		}
	}
	if !local.IsValid() {
		local = address
	}
	p = netip.PrefixFrom(local.Unmap(), bits)
	return p, p.IsValid() && !waits(flags)
}

// waits reports whether an IPv6 address with these flags is one that the kernel
// lists but does not use: it still asks, for a second or so, whether another
// host has it, or has learned that one does (RFC 4862 section 5.4). An
// optimistic address may be used meanwhile (RFC 4429). What counted from the
// first would be acted on before packets can come from it.
func waits(flags uint32) bool {
	tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	return tentative || flags&unix.IFA_F_DADFAILED != 0
}
