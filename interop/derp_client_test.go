package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	tsderp "tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/net/wsconn"
	"tailscale.com/tailcfg"
	tskey "tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	ourwebsocket "github.com/seed94491740/tsnode/transport/derp/websocket"
)

// messageWait bounds how long a message of a relay may take. It is far more than
// it takes: a test that waits so long has failed.
const messageWait = 30 * time.Second

// A packetClient is a client of either kind that exchanges packets, with our
// types.
type packetClient interface {
	SelfPublicKey() key.NodePublic
	Send(dst key.NodePublic, data []byte) error
	Recv() (derp.Message, error)
	Close() error
}

// A relayClient is a client of either kind with all that both can do.
type relayClient interface {
	packetClient

	Connect(context.Context) error
	ServerPublicKey() key.NodePublic
	ForwardPacket(src, dst key.NodePublic, data []byte) error
	RecvDetail() (m derp.Message, generation int, err error)
	WatchConnections() error
	ClosePeer(key.NodePublic) error
	Ping(context.Context) error
	SendPing([derp.PingSize]byte) error
	NotePreferred(bool)
}

var (
	_ relayClient = (*derp.Client)(nil)
	_ relayClient = referenceClient{}
)

// clientOptions say what client to make.
type clientOptions struct {
	private key.NodePrivate // zero makes one
	mesh    bool            // it has the mesh key
	watch   bool            // it watches connections from the start
	prober  bool
	notBest bool // by a map whose first relay cannot be reached
}

// newPacketClient returns a client that connects in the way of the relay.
func newPacketClient(t *testing.T, kind peer.Kind, rl *testRelay) packetClient {
	t.Helper()
	if kind == peer.Reference && rl.way == webSocket {
		return referenceOverWebSocket(t, rl)
	}
	return newRelayClient(t, kind, rl, clientOptions{})
}

// newRelayClient returns a client that connects in the way of the relay, which
// is not by WebSocket for one of the reference.
func newRelayClient(t *testing.T, kind peer.Kind, rl *testRelay, o clientOptions) relayClient {
	t.Helper()
	if o.private.IsZero() {
		o.private = key.NewNode()
	}
	var c relayClient
	if kind == peer.Ours {
		c = newOurs(t, rl, o)
	} else {
		c = newReference(t, rl, o)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reach connects a client and has what it receives kept.
func reach(t *testing.T, kind peer.Kind, rl *testRelay, o clientOptions) (relayClient, *messageLog) {
	t.Helper()
	c := newRelayClient(t, kind, rl, o)
	return c, listen(t, c)
}

// newOurs returns our client of a relay.
func newOurs(t *testing.T, rl *testRelay, o clientOptions) *derp.Client {
	t.Helper()
	options := derp.ClientOptions{
		Dialer:           &derp.Dialer{Network: host.OS{}, Roots: rl.roots, PlainHTTP: rl.way == plainHTTP},
		Info:             derp.ClientInfo{IsProber: o.prober},
		WatchConnections: o.watch,
		Logger:           testLog(t, "client"),
	}
	if rl.way == webSocket {
		options.Dialer.WebSocket = ourwebsocket.Dial
	}
	if o.mesh {
		options.Info.MeshKey = ourMeshKey(t)
	}
	if o.notBest {
		region := asOurs(t, rl.secondOfRegion()).Regions[1]
		return derp.NewRegionClient(o.private, func() *netmap.Region { return region }, options)
	}
	c, err := derp.NewClient(o.private, rl.url(), options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A referenceClient is the reference's client with our types.
type referenceClient struct {
	*derphttp.Client
}

// newReference returns the reference's client of a relay.
func newReference(t *testing.T, rl *testRelay, o clientOptions) referenceClient {
	t.Helper()
	var c *derphttp.Client
	if o.notBest {
		region := rl.secondOfRegion().Regions[1]
		c = derphttp.NewRegionClient(asTheirPrivate(t, o.private), logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
	} else {
		var err error
		c, err = derphttp.NewClient(asTheirPrivate(t, o.private), rl.url(), logger.Discard, netmon.NewStatic())
		if err != nil {
			t.Fatal(err)
		}
	}
	c.TLSConfig = &tls.Config{RootCAs: rl.roots}
	c.IsProber, c.WatchConnectionChanges = o.prober, o.watch
	if o.mesh {
		c.MeshKey = theirMeshKey(t)
	}
	return referenceClient{c}
}

func (c referenceClient) SelfPublicKey() key.NodePublic { return asOurKey(c.Client.SelfPublicKey()) }

func (c referenceClient) Send(dst key.NodePublic, data []byte) error {
	return c.Client.Send(asTheirKey(dst), data)
}

func (c referenceClient) Recv() (derp.Message, error) {
	m, err := c.Client.Recv()
	return asOurMessage(m), err
}

func (c referenceClient) RecvDetail() (derp.Message, int, error) {
	m, generation, err := c.Client.RecvDetail()
	return asOurMessage(m), generation, err
}

func (c referenceClient) ServerPublicKey() key.NodePublic {
	return asOurKey(c.Client.ServerPublicKey())
}

func (c referenceClient) ForwardPacket(src, dst key.NodePublic, data []byte) error {
	return c.Client.ForwardPacket(asTheirKey(src), asTheirKey(dst), data)
}

func (c referenceClient) ClosePeer(target key.NodePublic) error {
	return c.Client.ClosePeer(asTheirKey(target))
}

// WatchConnections connects: the reference's client asks when it does.
func (c referenceClient) WatchConnections() error { return c.Connect(context.Background()) }

// A referenceStream is the frames of the reference's client on a WebSocket. The
// reference's HTTP client dials one only in browsers and in builds with a tag of
// their own, in just this way.
type referenceStream struct {
	*tsderp.Client
	stop context.CancelFunc
}

func referenceOverWebSocket(t *testing.T, rl *testRelay) referenceStream {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	c, _, err := websocket.Dial(ctx, rl.url(), &websocket.DialOptions{
		Subprotocols: []string{"derp"},
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: rl.roots}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := wsconn.NetConn(ctx, c, websocket.MessageBinary, rl.url())
	frames, err := tsderp.NewClient(tskey.NewNode(), conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), logger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return referenceStream{frames, stop}
}

func (c referenceStream) SelfPublicKey() key.NodePublic { return asOurKey(c.Client.PublicKey()) }

func (c referenceStream) Send(dst key.NodePublic, data []byte) error {
	return c.Client.Send(asTheirKey(dst), data)
}

func (c referenceStream) Recv() (derp.Message, error) {
	m, err := c.Client.Recv()
	return asOurMessage(m), err
}

func (c referenceStream) Close() error {
	c.stop()
	return nil
}

// asOurMessage returns what the reference's client has read as ours would.
func asOurMessage(m tsderp.ReceivedMessage) derp.Message {
	switch m := m.(type) {
	case tsderp.ReceivedPacket:
		return derp.ReceivedPacket{Source: asOurKey(m.Source), Data: m.Data}
	case tsderp.PeerGoneMessage:
		return derp.PeerGone{Peer: asOurKey(m.Peer), Reason: derp.GoneReason(m.Reason)}
	case tsderp.PeerPresentMessage:
		return derp.PeerPresent{Peer: asOurKey(m.Key), Addr: m.IPPort, Flags: derp.PresentFlags(m.Flags)}
	case tsderp.ServerInfoMessage:
		return derp.ServerInfo{TokenBucketBytesPerSecond: m.TokenBucketBytesPerSecond, TokenBucketBytesBurst: m.TokenBucketBytesBurst}
	case tsderp.PingMessage:
		return derp.Ping(m)
	case tsderp.PongMessage:
		return derp.Pong(m)
	case tsderp.KeepAliveMessage:
		return derp.KeepAlive{}
	case tsderp.HealthMessage:
		return derp.Health{Problem: m.Problem}
	case tsderp.ServerRestartingMessage:
		return derp.Restarting{ReconnectIn: m.ReconnectIn, TryFor: m.TryFor}
	}
	return nil
}

// A messageLog takes what a client receives, until its connection fails.
type messageLog struct {
	client packetClient
	ch     chan receipt
}

// A receipt is what one Recv has returned.
type receipt struct {
	derp.Message
	err error
}

// maxMessages is how many messages wait for a test to look at them.
const maxMessages = 10000

// receive begins to receive.
func receive(c packetClient) *messageLog {
	l := &messageLog{client: c, ch: make(chan receipt, maxMessages)}
	go l.run()
	return l
}

// listen begins to receive, and waits until the relay has let the client in: its
// first message is ServerInfo (DERP-23, DERP-24).
func listen(t *testing.T, c packetClient) *messageLog {
	t.Helper()
	l := receive(c)
	if m := l.next(t); !isServerInfo(m) {
		t.Fatalf("first message is %#v, want ServerInfo", m)
	}
	return l
}

func isServerInfo(m derp.Message) bool {
	_, ok := m.(derp.ServerInfo)
	return ok
}

func (l *messageLog) run() {
	for {
		m, err := l.client.Recv()
		if p, ok := m.(derp.ReceivedPacket); ok { // borrowed until the next Recv
			m = derp.ReceivedPacket{Source: p.Source, Data: bytes.Clone(p.Data)}
		}
		l.ch <- receipt{m, err}
		if err != nil {
			return
		}
	}
}

// next waits for one message.
func (l *messageLog) next(t *testing.T) derp.Message {
	t.Helper()
	r := l.wait(t)
	if r.err != nil {
		t.Fatalf("receive: %v", r.err)
	}
	return r.Message
}

func (l *messageLog) wait(t *testing.T) receipt {
	t.Helper()
	select {
	case r := <-l.ch:
		return r
	case <-time.After(messageWait):
		t.Fatalf("nothing received in %v", messageWait)
		return receipt{}
	}
}

// await waits for a message of type M that is as wanted, and skips all others.
func await[M derp.Message](t *testing.T, l *messageLog, want func(M) bool) M {
	t.Helper()
	for {
		if m, ok := l.next(t).(M); ok && want(m) {
			return m
		}
	}
}

// awaitPacket waits for a packet from a source, and skips all other messages.
func (l *messageLog) awaitPacket(t *testing.T, from key.NodePublic, data []byte) {
	t.Helper()
	await(t, l, func(p derp.ReceivedPacket) bool { return p.Source == from && bytes.Equal(p.Data, data) })
}

// awaitGone waits for the notice that a peer is gone.
func (l *messageLog) awaitGone(t *testing.T, who key.NodePublic, why derp.GoneReason) {
	t.Helper()
	await(t, l, func(m derp.PeerGone) bool { return m == derp.PeerGone{Peer: who, Reason: why} })
}

// awaitError waits until the connection fails.
func (l *messageLog) awaitError(t *testing.T) {
	t.Helper()
	for l.wait(t).err == nil {
	}
}
