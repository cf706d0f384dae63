// Package host is the seam to the machine a node runs on: every socket, name
// lookup and interface address comes through a Network. OS is the machine
// itself; internal/simnet is a simulated one. No other package opens a socket.
package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// A Network is all that a node asks of its host's network.
type Network interface {
	// ListenUDP binds a wildcard socket of one family, which is "udp4" or
	// "udp6" (IPv6 only). Port 0 lets the system choose.
	ListenUDP(ctx context.Context, family string, port uint16) (UDPConn, error)

	// Dial connects as net.Dialer.DialContext does: networks tcp, udp, each with 4
	// or 6 behind it for one family, and unix.
	Dial(ctx context.Context, network, address string) (net.Conn, error)

	// Listen listens as net.ListenConfig.Listen does.
	Listen(ctx context.Context, network, address string) (net.Listener, error)

	// LookupNetIP resolves a name as net.Resolver.LookupNetIP does; network is
	// ip, ip4 or ip6. Results are unmapped (SVC-03).
	LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error)

	// Interfaces returns the host's interfaces that are up.
	Interfaces() ([]Interface, error)

	// DefaultRoute returns the IPv4 default route, or the IPv6 one of a host that
	// has no other. The error is ErrNoRoute when there is none, and
	// errors.ErrUnsupported where the host does not tell.
	DefaultRoute() (Route, error)

	// Watch calls changed, from one goroutine, after each change of interfaces,
	// addresses or default route, and perhaps without one, until ctx ends. It returns errors.ErrUnsupported where
	// changes can only be found by looking again and again.
	Watch(ctx context.Context, changed func()) error

	// Echo sends one ICMP echo request and returns how long its answer took. The
	// error is errors.ErrUnsupported where the host does not allow it.
	Echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error)
}

// ErrNoRoute says that a host has no default route.
var ErrNoRoute = errors.New("host has no default route")

// An Interface is one network interface that is up.
type Interface struct {
	Name     string
	Loopback bool
	Addrs    []netip.Prefix // addresses with their on-link prefix length
}

// A UDPConn is a UDP socket that moves datagrams in batches. One goroutine may
// read while another writes; writes from several goroutines are allowed.
type UDPConn interface {
	// ReadBatch waits for at least one message and fills ms[:n]. It returns
	// net.ErrClosed after Close.
	ReadBatch(ms []Message) (n int, err error)

	// WriteBursts sends bursts to one address with as few system calls as the
	// host allows. Room bytes are sent with the datagram. A burst that fails is
	// lost; the error is the first one.
	WriteBursts(to netip.AddrPort, bursts []packet.Burst) error

	// LocalAddr returns the bound address.
	LocalAddr() netip.AddrPort

	// Close unblocks ReadBatch. It may be called more than once.
	Close() error
}

// A Message is one read from a UDP socket: one datagram, or several of equal
// size (the last may be shorter) that the host has joined.
type Message struct {
	Buf     []byte         // set by the caller; large enough for 64 KiB
	N       int            // bytes read into Buf
	Segment int            // size of each datagram; equals N for a single one
	From    netip.AddrPort // sender, unmapped
}
