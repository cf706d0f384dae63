package devnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

const (
	maxRelays = 16
	loopback  = "127.0.0.1"
)

// A region is one relay with its STUN server, on loopback.
type region struct {
	id      int
	log     *slog.Logger
	private key.NodePrivate // stays the same over restarts
	cert    tls.Certificate

	mu             sync.Mutex
	derpPort, stun int // once bound, kept
	cancel         context.CancelFunc
	server         *http.Server
	relay          *relay.Server
	wg             sync.WaitGroup
}

func newRegion(id int, log *slog.Logger) (*region, error) {
	cert, err := relay.SelfSigned(loopback)
	if err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	return &region{id: id, log: log, private: key.NewNode(), cert: cert}, nil
}

// start opens both sockets and serves; starting twice does nothing.
func (r *region) start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", fmt.Sprintf("%s:%d", loopback, r.derpPort))
	if err != nil {
		return fmt.Errorf("devnet: relay: %w", err)
	}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("%s:%d", loopback, r.stun))
	if err != nil {
		ln.Close()
		return fmt.Errorf("devnet: STUN: %w", err)
	}
	udp := udpConn{pc.(*net.UDPConn)}
	r.derpPort, r.stun = ln.Addr().(*net.TCPAddr).Port, int(udp.LocalAddr().Port())
	r.relay = relay.New(r.private, relay.Options{Logger: r.log})
	r.server = &http.Server{Handler: r.relay.Handler(), ReadHeaderTimeout: headerTimeout, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: r.relay.TLSConfig(r.cert)}
	run, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	server := r.server
	r.wg.Go(func() { server.ServeTLS(ln, "", "") })
	r.wg.Go(func() { stun.NewServer(udp, r.log).Serve(run) })
	return nil
}

// stop ends both servers and waits.
func (r *region) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return
	}
	r.cancel()
	r.server.Close()
	r.relay.Close()
	r.wg.Wait()
	r.server, r.relay = nil, nil
}

// derpNode is the relay as the DERP map shows it. Clients trust exactly its
// certificate.
func (r *region) derpNode() *netmap.DERPNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &netmap.DERPNode{
		Name: fmt.Sprintf("%da", r.id), RegionID: r.id, HostName: loopback, IPv4: loopback, IPv6: "none",
		CertName: derp.PinCertName(r.cert.Certificate[0]), DERPPort: r.derpPort, STUNPort: r.stun, STUNTestIP: loopback,
	}
}

// derpMap lists the relays, running or not; n.mu is held.
func (n *Net) derpMap() *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: make(map[int]*netmap.Region), OmitDefaultRegions: true}
	for _, r := range n.relays {
		dm.Regions[r.id] = &netmap.Region{
			RegionID: r.id, RegionCode: fmt.Sprintf("dev%d", r.id), RegionName: fmt.Sprintf("devnet %d", r.id),
			Nodes: []*netmap.DERPNode{r.derpNode()},
		}
	}
	return dm
}

// StopRelay stops the relay of a region, counted from 1, as if it had crashed.
func (n *Net) StopRelay(id int) error {
	r, err := n.region(id)
	if err == nil {
		r.stop()
	}
	return err
}

// StartRelay starts it again, at the same address with the same key.
func (n *Net) StartRelay(id int) error {
	r, err := n.region(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bindTimeout)
	defer cancel()
	return r.start(ctx)
}

func (n *Net) region(id int) (*region, error) {
	if id < 1 || id > len(n.relays) {
		return nil, fmt.Errorf("devnet: there is no relay %d; they are numbered from 1 to %d", id, len(n.relays))
	}
	return n.relays[id-1], nil
}

// A udpConn is a loopback socket for the STUN server: host binds wildcard
// addresses only.
type udpConn struct{ *net.UDPConn }

var _ host.UDPConn = udpConn{}

// ReadBatch implements host.UDPConn with one message.
func (c udpConn) ReadBatch(ms []host.Message) (int, error) {
	n, from, err := c.ReadFromUDPAddrPort(ms[0].Buf)
	if err != nil {
		return 0, err
	}
	ms[0].N, ms[0].Segment = n, n
	ms[0].From = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

// WriteBursts implements host.UDPConn.
func (c udpConn) WriteBursts(to netip.AddrPort, bursts []packet.Burst) error {
	var errs []error
	for _, b := range bursts {
		for i := range b.Count {
			_, err := c.WriteToUDPAddrPort(b.Datagram(i), to)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// LocalAddr implements host.UDPConn.
func (c udpConn) LocalAddr() netip.AddrPort { return c.UDPConn.LocalAddr().(*net.UDPAddr).AddrPort() }
