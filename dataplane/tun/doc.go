// Package tun is the overlay on a TUN device instead of netstack: what the
// operating system sends into the device goes to the tailnet, and what comes from
// there is written to it. Filter, routes and tunnel are the same for both (WG-59).
//
// A [Framing] is the pure core: what surrounds a packet on a descriptor, and what
// the kernel leaves for the reader to do, or the other way round: to form
// checksums, and to cut segments. A [Device] reads and writes a descriptor that is
// handed in:
//
//	Linux   a TUN device made with IFF_NO_PI, with or without virtio-net header
//	macOS   a utun socket
//	unix    a socket of AF_UNIX that keeps messages apart, one packet in each (VPN-44)
//
// The descriptor is duplicated, and address, MTU, routes and names are the business
// of who made the device (VPN-41).
//
// Reading is done by the loop that seals, on its own goroutine, and writing by the
// one that opened a packet (WG-74); a goroutine of the device only waits for the
// descriptor while there is nothing to read. A device that is gone ends the node
// with [dataplane.ErrDeviceGone] (VPN-43).
//
// Source: doc/protocol/vpn-tunnel.md section 6 (VPN-39 to VPN-44), the kernel's
// Documentation/networking/tuntap.rst, and the Virtual I/O Device specification 1.2
// section 5.1.6.
package tun
