package devnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// patience bounds everything that a test waits for.
const patience = 10 * time.Second

// A rawNode speaks the protocol by hand, so that a test sees each answer as it
// is.
type rawNode struct {
	t       *testing.T
	tailnet *Net
	machine key.MachinePrivate
	key     key.NodePrivate
	disco   key.DiscoPublic
	version int
	name    string
	client  *http.Client
}

func newRawNode(t *testing.T, tailnet *Net, name string) *rawNode {
	r := &rawNode{
		t: t, tailnet: tailnet, machine: key.NewMachine(), key: key.NewNode(), disco: key.NewDisco().Public(),
		version: control.CapabilityVersion, name: name,
	}
	r.connect()
	return r
}

// connect makes the HTTP client anew: the next request dials.
func (r *rawNode) connect() {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx) }}
	tr.Protocols.SetUnencryptedHTTP2(true)
	r.t.Cleanup(tr.CloseIdleConnections)
	r.client = &http.Client{Transport: tr}
}

// dial upgrades a connection, and checks the early payload (CTL-05, 06, 16).
func (r *rawNode) dial(ctx context.Context) (net.Conn, error) {
	addr := strings.TrimPrefix(r.tailnet.URL(), "http://")
	var server control.KeyResponse
	if err := getJSON(ctx, fmt.Sprintf("%s/key?v=%d", r.tailnet.URL(), r.version), &server); err != nil {
		return nil, err
	}
	h, err := control.StartHandshake(r.machine, server.PublicKey, uint16(r.version))
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(nc, "POST /ts2021 HTTP/1.1\r\nHost: %s\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\nX-Tailscale-Handshake: %s\r\nContent-Length: 0\r\n\r\n",
		addr, base64.StdEncoding.EncodeToString(h.Initiation()))
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		nc.Close()
		return nil, fmt.Errorf("upgrade: %v, %w", resp, err)
	}
	answer := make([]byte, control.ResponseSize)
	if _, err := io.ReadFull(br, answer); err != nil {
		nc.Close()
		return nil, err
	}
	secrets, err := h.Finish(answer)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := control.NewConn(nc, br, secrets)
	return c, readEarly(c)
}

func readEarly(r io.Reader) error {
	head := make([]byte, 9)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if string(head[:5]) != "\xff\xff\xffTS" {
		return fmt.Errorf("early payload begins with %q", head)
	}
	var p control.EarlyPayload
	return json.NewDecoder(io.LimitReader(r, int64(binary.BigEndian.Uint32(head[5:])))).Decode(&p)
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// post sends a request inside Noise and returns status and body.
func (r *rawNode) post(ctx context.Context, path string, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://devnet"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return r.client.Do(req)
}

// call sends a request and wants a status; it returns the body.
func (r *rawNode) call(path string, body any, status int) []byte {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	resp, err := r.post(ctx, path, body)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		r.t.Fatalf("%s: status %d, body %q, %v; want status %d", path, resp.StatusCode, b, err, status)
	}
	return b
}

func (r *rawNode) hostinfo() *control.Hostinfo {
	return &control.Hostinfo{Hostname: r.name, OS: "linux", NetInfo: &control.NetInfo{PreferredDERP: 1}}
}

// register registers with an auth key, which may be empty; change may alter the
// request.
func (r *rawNode) register(authKey string, change ...func(*control.RegisterRequest)) *control.RegisterResponse {
	r.t.Helper()
	req := &control.RegisterRequest{Version: r.version, NodeKey: r.key.Public(), Hostinfo: r.hostinfo()}
	if authKey != "" {
		req.Auth = &control.RegisterAuth{AuthKey: authKey}
	}
	for _, c := range change {
		c(req)
	}
	resp := new(control.RegisterResponse)
	if err := json.Unmarshal(r.call(control.PathRegister, req, http.StatusOK), resp); err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// join registers with a fresh key and wants to be let in.
func (r *rawNode) join(o KeyOptions) *rawNode {
	r.t.Helper()
	if resp := r.register(r.tailnet.AuthKey(o)); resp.Error != "" || resp.AuthURL != "" {
		r.t.Fatalf("register: %+v", resp)
	}
	return r
}

func (r *rawNode) mapRequest() *control.MapRequest {
	return &control.MapRequest{Version: r.version, KeepAlive: true, NodeKey: r.key.Public(), DiscoKey: r.disco, Hostinfo: r.hostinfo()}
}

// report sends a lite update.
func (r *rawNode) report(change ...func(*control.MapRequest)) {
	r.t.Helper()
	req := r.mapRequest()
	req.OmitPeers = true
	for _, c := range change {
		c(req)
	}
	if b := r.call(control.PathMap, req, http.StatusOK); len(b) != 0 {
		r.t.Fatalf("lite update: answered with %q", b)
	}
}

// A rawStream is a map stream with what it has brought so far.
type rawStream struct {
	t      *testing.T
	node   *rawNode
	cancel context.CancelFunc
	frames chan *control.MapResponse // closed at the end
	state  *control.MapResponse      // first frame
	self   *control.Node
	peers  map[netmap.NodeID]*control.Node
	handle string
	seq    int64
}

// poll opens a map stream and reads its first frame.
func (r *rawNode) poll(change ...func(*control.MapRequest)) *rawStream {
	r.t.Helper()
	s := r.pollOnly(change...)
	s.state = s.next()
	if s.self == nil && s.state.MapSessionHandle == "" {
		r.t.Fatalf("first frame has no Node: %+v", s.state)
	}
	return s
}

func (r *rawNode) pollOnly(change ...func(*control.MapRequest)) *rawStream {
	r.t.Helper()
	req := r.mapRequest()
	req.Stream = true
	for _, c := range change {
		c(req)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	r.t.Cleanup(cancel)
	s := &rawStream{t: r.t, node: r, cancel: cancel, frames: make(chan *control.MapResponse, 100), peers: make(map[netmap.NodeID]*control.Node)}
	resp, err := r.post(ctx, control.PathMap, req)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("map: status %d: %s", resp.StatusCode, b)
	}
	go func() {
		defer close(s.frames)
		defer resp.Body.Close()
		for {
			m, err := readFrame(resp.Body)
			if err != nil {
				return
			}
			s.frames <- m
		}
	}()
	return s
}

func readFrame(r io.Reader) (*control.MapResponse, error) {
	var size uint32
	if err := binary.Read(r, binary.LittleEndian, &size); err != nil {
		return nil, err
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	m := new(control.MapResponse)
	return m, json.Unmarshal(body, m)
}

// next returns the next frame and takes what it says about nodes.
func (s *rawStream) next() *control.MapResponse {
	s.t.Helper()
	select {
	case m, ok := <-s.frames:
		if !ok {
			s.t.Fatal("map stream has ended")
		}
		s.take(m)
		return m
	case <-time.After(patience):
		s.t.Fatal("no frame")
	}
	return nil
}

func (s *rawStream) take(m *control.MapResponse) {
	if m.Node != nil {
		s.self = m.Node
	}
	if m.MapSessionHandle != "" {
		s.handle = m.MapSessionHandle
	}
	s.seq = max(s.seq, m.Seq)
	for _, p := range append(m.Peers, m.PeersChanged...) {
		s.peers[p.ID] = p
	}
	for _, id := range m.PeersRemoved {
		delete(s.peers, id)
	}
	for _, c := range m.PeersChangedPatch {
		p := s.peers[c.NodeID]
		if p == nil {
			s.t.Fatalf("patch of unknown peer %d", c.NodeID)
		}
		applyPatch(p, c)
	}
}

// applyPatch does what a client does (CTL-35).
func applyPatch(p *control.Node, c *control.PeerChange) {
	if c.DERPRegion != 0 {
		p.HomeDERP = c.DERPRegion
	}
	if c.Cap != 0 {
		p.Cap = c.Cap
	}
	if c.Endpoints != nil {
		p.Endpoints = c.Endpoints
	}
	if c.DiscoKey != nil {
		p.DiscoKey = *c.DiscoKey
	}
	if c.Online != nil {
		p.Online = c.Online
	}
	if c.LastSeen != nil {
		p.LastSeen = c.LastSeen
	}
}

// until reads frames until cond holds.
func (s *rawStream) until(what string, cond func() bool) {
	s.t.Helper()
	for range 100 {
		if cond() {
			return
		}
		s.next()
	}
	s.t.Fatalf("100 frames without %s", what)
}

// ended waits for the server to end the stream.
func (s *rawStream) ended() {
	s.t.Helper()
	after := time.After(patience)
	for {
		select {
		case m, ok := <-s.frames:
			if !ok {
				return
			}
			s.take(m)
		case <-after:
			s.t.Fatal("map stream goes on")
		}
	}
}

// peer returns the peer of that name, nil if it is not there.
func (s *rawStream) peer(name string) *control.Node {
	for _, p := range s.peers {
		if strings.HasPrefix(p.Name, name+".") {
			return p
		}
	}
	return nil
}
