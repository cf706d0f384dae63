package devnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"syscall"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// A region is one relay with its STUN server. Its key, certificate and ports
// stay the same over restarts.
type region struct {
	service
	id      int
	addr    netip.Addr // to listen at
	name    string     // DNS name; empty: none
	network host.Network
	log     *slog.Logger
	private key.NodePrivate
	cert    tls.Certificate

	derpPort, stunPort uint16 // once bound, kept
}

func newRegion(id int, addr netip.Addr, c Config) (*region, error) {
	hosts, err := hostsOf(c.Network, addr)
	if err != nil {
		return nil, err
	}
	if c.HostName != "" {
		hosts = append(hosts, c.HostName)
	}
	cert, err := relay.SelfSigned(hosts...)
	if err != nil {
		return nil, err
	}
	r := &region{id: id, addr: addr, name: c.HostName, network: c.Network, log: c.Logger, private: key.NewNode(), cert: cert}
	r.service.open = r.open
	return r, nil
}

// hostsOf returns the addresses under which a server that listens at addr is
// reached, for its certificate.
func hostsOf(network host.Network, addr netip.Addr) ([]string, error) {
	if !addr.IsUnspecified() {
		return []string{addr.String()}, nil
	}
	interfaces, err := network.Interfaces()
	if err != nil {
		return nil, err
	}
	hosts := []string{loopback.String(), netip.IPv6Loopback().String()}
	for _, i := range interfaces {
		for _, p := range i.Addrs {
			hosts = append(hosts, p.Addr().WithZone("").String())
		}
	}
	return hosts, nil
}

// open opens all sockets, or none, and serves.
func (r *region) open(ctx context.Context) (stop func(), err error) {
	ln, err := r.network.Listen(ctx, "tcp", netip.AddrPortFrom(r.addr, r.derpPort).String())
	if err != nil {
		return nil, fmt.Errorf("relay %d: %w", r.id, err)
	}
	sockets, err := r.listenSTUN(ctx)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("STUN server %d: %w", r.id, err)
	}
	if r.derpPort == 0 {
		bound, err := netip.ParseAddrPort(ln.Addr().String())
		if err != nil {
			ln.Close()
			closeAll(sockets)
			return nil, fmt.Errorf("relay %d: %w", r.id, err)
		}
		r.derpPort, r.stunPort = bound.Port(), sockets[0].LocalAddr().Port()
	}
	derper := relay.New(r.private, relay.Options{QueueDepth: relayQueue, Logger: r.log})
	web := &http.Server{
		Handler: derper.Handler(), TLSConfig: derper.TLSConfig(r.cert), ReadHeaderTimeout: headerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: log.New(io.Discard, "", 0),
	}
	run, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { web.ServeTLS(ln, "", "") })
	for _, udp := range sockets {
		serving.Go(func() {
			if err := stun.NewServer(udp, r.log).Serve(run); run.Err() == nil {
				r.log.Error("STUN server has ended", "region", r.id, "err", err)
			}
		})
	}
	return func() {
		cancel()
		web.Close()
		derper.Close()
		serving.Wait()
	}, nil
}

// bindTries is how many ports are tried until one is free in both families.
const bindTries = 8

// listenSTUN opens the sockets of the STUN server, one for each family that is
// served and that the host has, at one port. Sockets of a host are bound to no
// address, so one that is to serve this machine alone is made deaf to others.
func (r *region) listenSTUN(ctx context.Context) (sockets []host.UDPConn, err error) {
	for range bindTries {
		sockets, err = r.bindSTUN(ctx)
		if err == nil || r.stunPort != 0 {
			break
		}
	}
	if err == nil && r.addr.IsLoopback() {
		for i := range sockets {
			sockets[i] = localOnly{sockets[i]}
		}
	}
	return sockets, err
}

func (r *region) bindSTUN(ctx context.Context) (sockets []host.UDPConn, err error) {
	families := []string{"udp4"}
	if r.addr.IsUnspecified() {
		families = []string{"udp4", "udp6"}
	} else if r.addr.Is6() {
		families = []string{"udp6"}
	}
	port := r.stunPort
	for _, family := range families {
		udp, err := r.network.ListenUDP(ctx, family, port)
		switch {
		case errors.Is(err, syscall.EAFNOSUPPORT) && len(families) > 1:
			continue // the host has one family only
		case err != nil:
			closeAll(sockets)
			return nil, err
		}
		sockets, port = append(sockets, udp), udp.LocalAddr().Port()
	}
	if len(sockets) == 0 {
		return nil, syscall.EAFNOSUPPORT
	}
	return sockets, nil
}

func closeAll(sockets []host.UDPConn) {
	for _, c := range sockets {
		c.Close()
	}
}

// localOnly is a socket that hears nothing but loopback.
type localOnly struct{ host.UDPConn }

// ReadBatch implements host.UDPConn.
func (c localOnly) ReadBatch(ms []host.Message) (int, error) {
	for {
		n, err := c.UDPConn.ReadBatch(ms)
		if err != nil {
			return n, err
		}
		kept := 0
		for i := range ms[:n] {
			if ms[i].From.Addr().IsLoopback() {
				ms[kept], ms[i] = ms[i], ms[kept] // keeps both buffers
				kept++
			}
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// node is the relay as the DERP map shows it to a node that reaches this machine
// at an address. Nodes trust exactly its certificate (derp.md section 12).
func (r *region) node(at netip.Addr) *netmap.DERPNode {
	n := &netmap.DERPNode{
		Name: fmt.Sprintf("%da", r.id), RegionID: r.id, HostName: r.name, CertName: derp.PinCertName(r.cert.Certificate[0]),
		DERPPort: int(r.derpPort), STUNPort: int(r.stunPort),
	}
	if r.name != "" {
		return n
	}
	n.HostName, n.STUNTestIP, n.IPv4, n.IPv6 = at.String(), at.String(), at.String(), "none"
	if at.Is6() {
		n.IPv4, n.IPv6 = n.IPv6, n.IPv4
	}
	return n
}

// derpMap lists the relays, running or not.
func derpMap(regions []*region, at netip.Addr) *netmap.DERPMap {
	m := &netmap.DERPMap{Regions: make(map[int]*netmap.Region), OmitDefaultRegions: true}
	for _, r := range regions {
		m.Regions[r.id] = &netmap.Region{
			RegionID: r.id, RegionCode: fmt.Sprintf("dev%d", r.id), RegionName: fmt.Sprintf("devnet %d", r.id),
			Nodes: []*netmap.DERPNode{r.node(at)},
		}
	}
	return m
}

// StopRelay stops the relay and the STUN server of a region, counted from 1, as
// if the machine had crashed.
func (n *Net) StopRelay(id int) error {
	r, err := n.region(id)
	if err == nil {
		r.halt()
	}
	return err
}

// StartRelay starts them again, at the same addresses with the same key.
func (n *Net) StartRelay(id int) error {
	r, err := n.region(id)
	if err != nil {
		return err
	}
	return startAgain(r.start)
}

// RestartRelay is StopRelay and StartRelay.
func (n *Net) RestartRelay(id int) error { return errors.Join(n.StopRelay(id), n.StartRelay(id)) }

func (n *Net) region(id int) (*region, error) {
	if id < 1 || id > len(n.regions) {
		return nil, fmt.Errorf("devnet: relay %d: there are %d, numbered from 1", id, len(n.regions))
	}
	return n.regions[id-1], nil
}
