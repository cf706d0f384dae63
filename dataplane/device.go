package dataplane

import (
	"context"
	"errors"
	"net/netip"
)

// ErrDeviceGone says that the device of a node is no more: it was removed, or who
// has handed it in has closed it (VPN-43).
var ErrDeviceGone = errors.New("the TUN device is gone")

// A Device is the operating system's end of the overlay, in place of a stack in the
// process: its one link, and what comes from there. Package dataplane/tun makes one
// of a descriptor; a program without one does not link that package.
type Device interface {
	// String names the device in logs, as what is supervised.
	String() string

	// Serve must run for the device's link to signal that it is ready. It ends with
	// ctx, or when the device is gone: that ends the node, with ErrDeviceGone.
	Serve(ctx context.Context) error

	// Beside returns the overlay that the device and the node's own services are
	// together: the links of both, and what makes the Delivery of one receive
	// goroutine. It is called once, before the device is used.
	Beside(Services) (links []Link, newDelivery func() Delivery)

	// Name is that of the interface; empty when the descriptor is none's.
	Name() string

	// Stats returns the counters.
	Stats() DeviceStats

	// Close lets go of the descriptor. It may be called more than once.
	Close() error
}

// Services are what a node answers itself beside a device, on a stack of its own.
// None of the functions blocks.
type Services struct {
	Link        Link
	NewDelivery func() Delivery

	// Answers reports whether they answer the operating system at an address.
	Answers func(dst netip.Addr) bool

	// Own reports whether an address is one that the operating system has on the
	// tailnet: what they send there is for it.
	Own func(dst netip.Addr) bool

	// Serves reports whether they are what a peer reaches at a TCP port.
	Serves func(dst netip.AddrPort) bool
}

// DeviceStats count what passed a device, in frames: a TCP super-packet is one.
type DeviceStats struct {
	Read, Written uint64
	Malformed     uint64 // read, and no IP packets
	Refused       uint64 // packets that the device did not take
}
