package host

import (
	"encoding/binary"
	"fmt"
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

// parseAddresses reads the dump of addresses of rtnetlink(7).
func parseAddresses(dump []byte) (map[int][]netip.Prefix, error) {
	ms, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, fmt.Errorf("netlink: parse addresses: %w", err)
	}
	all := make(map[int][]netip.Prefix)
	for i := range ms {
		if index, p, ok := parseAddress(&ms[i]); ok {
			all[index] = append(all[index], p)
		}
	}
	return all, nil
}

// parseAddress reads one message: struct ifaddrmsg and attributes. It reports
// whether that is an address which the kernel uses.
func parseAddress(m *syscall.NetlinkMessage) (index int, p netip.Prefix, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return 0, netip.Prefix{}, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return 0, netip.Prefix{}, false
	}
	flags := uint32(m.Data[2])
	var local, address netip.Addr
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case a.Attr.Type == unix.IFA_ADDRESS: // the other end, if there is a local one and the link is between two
			address, _ = netip.AddrFromSlice(a.Value)
		case a.Attr.Type == unix.IFA_FLAGS && len(a.Value) >= 4:
			flags = binary.NativeEndian.Uint32(a.Value)
		}
	}
	if !local.IsValid() {
		local = address
	}
	p = netip.PrefixFrom(local.Unmap(), int(m.Data[1]))
	return int(binary.NativeEndian.Uint32(m.Data[4:])), p, p.IsValid() && !waits(flags)
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
