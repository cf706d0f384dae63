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
type OS struct {
	// Mark is put on what the sockets send, so that rules of routing can tell it
	// from what others send; 0 puts none. Marks are Linux's, and for those who
	// MayMark.
	Mark uint32
}

// Dial connects with the operating system's own timeouts; ctx bounds it.
func (o OS) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: o.marked(nil)}
	return d.DialContext(ctx, network, address)
}

// Listen listens on the host; 0.0.0.0 means IPv4 only.
func (o OS) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: o.marked(nil)}
	return lc.Listen(ctx, ofFamily(network, address), address)
}

// LookupNetIP asks the host's resolver, with a mark by the one of package net,
// whose sockets can have it.
func (o OS) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	resolver := net.DefaultResolver
	if o.Mark != 0 {
		resolver = &net.Resolver{PreferGo: true, Dial: o.Dial}
	}
	addrs, err := resolver.LookupNetIP(ctx, network, name)
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
