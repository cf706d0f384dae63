package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os"
	"sync"
	"time"
)

const (
	// variable is set in the environment of a process that runs a node.
	variable = "TSNODE_INTEROP_PEER"

	serviceName = "Peer"

	// File descriptors of the pipes, in a process that runs a node.
	requestFD  = 3
	responseFD = 4
)

// Bounds of what a process waits for.
const (
	upWait   = 60 * time.Second      // to be on the tailnet
	peerWait = 30 * time.Second      // for a peer to come with the netmap, and for a dial
	pingWait = 10 * time.Second      // for a pong (PATH-93)
	pollTime = 20 * time.Millisecond // between looks at the netmap
)

// Main runs a node in place of the program if Start has started it, and does
// not return then. It must be called before the program does anything else.
func Main() {
	if os.Getenv(variable) == "" {
		return
	}
	server := rpc.NewServer()
	if err := server.RegisterName(serviceName, newService()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server.ServeConn(pipes{os.NewFile(requestFD, "requests"), os.NewFile(responseFD, "responses")})
	os.Exit(0)
}

// pipes are a connection in two halves.
type pipes struct {
	io.ReadCloser
	io.Writer
}

// A service is the process's side of a Process. Its exported methods are those
// that net/rpc calls, each on a goroutine of its own.
type service struct {
	member member
	echo   *echo
	watch  watch

	mu      sync.Mutex
	next    uint64
	flows   map[uint64]*flowSender
	streams map[uint64]*streamSender
}

func newService() *service {
	return &service{
		echo:    &echo{seen: make(map[uint64][]arrival)},
		flows:   make(map[uint64]*flowSender),
		streams: make(map[uint64]*streamSender),
	}
}

// Up brings the node on its tailnet and starts its echo. It is called once,
// before all others.
func (s *service) Up(o Options, ip *netip.Addr) error {
	m, err := newMember(o, os.Stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), upWait)
	defer cancel()
	if err := m.up(ctx); err != nil {
		return err
	}
	s.member = m
	*ip, _ = m.TailscaleIPs()
	go s.watch.run(m)
	return s.echo.serve(m)
}

// Await waits until a peer has come with the netmap, and its home relay, too:
// what is sent before is lost.
func (s *service) Await(ip netip.Addr, _ *bool) error {
	for deadline := time.Now().Add(peerWait); time.Now().Before(deadline); time.Sleep(pollTime) {
		if s.member.paths([]netip.Addr{ip})[0] != (Path{}) {
			return nil
		}
	}
	return fmt.Errorf("no peer has the address %v and a home relay", ip)
}

// Peer returns what the node knows of a peer.
func (s *service) Peer(ip netip.Addr, p *Peer) error {
	var known bool
	if *p, known = s.member.peer(context.Background(), ip); !known {
		return fmt.Errorf("no peer has the address %v", ip)
	}
	return nil
}

// PingOptions say what to ping.
type PingOptions struct {
	To   netip.Addr
	Kind string
}

// Ping pings a peer once.
func (s *service) Ping(o PingOptions, p *Pong) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), pingWait)
	defer cancel()
	*p, err = s.member.ping(ctx, o.To, o.Kind)
	return err
}

// Watch follows the path to a peer from the first call on, and returns its
// changes.
func (s *service) Watch(ip netip.Addr, changes *[]PathChange) error {
	*changes = s.watch.of(s.member, ip)
	return nil
}

// FlowOptions say what flow to start.
type FlowOptions struct {
	To    netip.Addr
	Every time.Duration // between datagrams
}

// StartFlow starts a Flow and returns its number for StopFlow.
func (s *service) StartFlow(o FlowOptions, number *uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerWait)
	defer cancel()
	f, err := startFlow(ctx, s.member, o.To, o.Every)
	if err != nil {
		return err
	}
	*number = f.number
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows[f.number] = f
	return nil
}

// StopFlow ends a Flow; its times There come from the other side's Arrivals.
func (s *service) StopFlow(number uint64, f *Flow) error {
	running, err := take(s, s.flows, number)
	if err != nil {
		return err
	}
	*f = running.finish()
	return nil
}

// Arrivals returns when the datagrams of a flow came to the echo.
func (s *service) Arrivals(number uint64, there *[]time.Time) error {
	*there = s.echo.arrivals(number)
	return nil
}

// StartStream starts a Stream to a peer and returns its number for StopStream.
func (s *service) StartStream(to netip.Addr, number *uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerWait)
	defer cancel()
	started, err := startStream(ctx, s.member, to)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	*number = s.next
	s.streams[s.next] = started
	return nil
}

// StopStream ends a Stream, and fails if what came back is not what was sent.
func (s *service) StopStream(number uint64, report *Stream) (err error) {
	running, err := take(s, s.streams, number)
	if err != nil {
		return err
	}
	*report, err = running.finish()
	return err
}

// Close closes the node. The process ends after it.
func (s *service) Close(bool, *bool) error { return s.member.Close() }

// take removes what runs under a number.
func take[T any](s *service, from map[uint64]*T, number uint64) (*T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := from[number]
	delete(from, number)
	if running == nil {
		return nil, errors.New("nothing runs under that number")
	}
	return running, nil
}
