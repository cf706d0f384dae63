package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// udpBuffer is the size asked for a UDP socket's send and receive buffers, in
// bytes (PATH-55).
const udpBuffer = 7 << 20

// familyNames are the families of ListenUDP in words.
var familyNames = map[string]string{"udp4": "IPv4", "udp6": "IPv6"}

// OS is the network of the machine itself.
type OS struct{}

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
