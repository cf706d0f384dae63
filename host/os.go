package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// udpBuffer is the size asked for a UDP socket's send and receive buffers, in
// bytes (PATH-55).
const udpBuffer = 7 << 20

// familyNames are the families of ListenUDP in words.
var familyNames = map[string]string{"udp4": "IPv4", "udp6": "IPv6"}

// OS is the network of the machine itself.
type OS struct{}

// ListenUDP binds a wildcard UDP socket with large buffers and, on Linux, with
// batched and segmented I/O where the kernel offers it.
func (OS) ListenUDP(ctx context.Context, family string, port uint16) (UDPConn, error) {
	if familyNames[family] == "" {
		return nil, fmt.Errorf("host: listen UDP: family %q is neither udp4 nor udp6", family)
	}
	lc := net.ListenConfig{Control: controlUDP}
	pc, err := lc.ListenPacket(ctx, family, ":"+strconv.Itoa(int(port)))
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		return nil, fmt.Errorf("host: this host has no %s: %w", familyNames[family], err)
	}
	if err != nil {
		return nil, err
	}
	c := pc.(*net.UDPConn)
	// Failure only costs throughput (PATH-55).
	c.SetReadBuffer(udpBuffer)
	c.SetWriteBuffer(udpBuffer)
	return newUDPConn(c, family == "udp6")
}

// Dial connects with the operating system's own timeouts; ctx bounds it.
func (OS) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Listen listens on the host.
func (OS) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

// LookupNetIP asks the host's resolver.
func (OS) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// Interfaces returns the interfaces that are up with the addresses that they
// use.
func (OS) Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("host: list interfaces: %w", err)
	}
	addrs, err := addresses(all)
	if err != nil {
		return nil, fmt.Errorf("host: list addresses: %w", err)
	}
	var up []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 {
			up = append(up, Interface{Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0, Addrs: addrs[i.Index]})
		}
	}
	return up, nil
}
