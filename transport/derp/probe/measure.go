package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

// Names of the steps.
const (
	StepConnect   = "connect"      // TCP, and TLS with its certificate
	StepProbe     = "probe"        // GET /derp/probe
	StepPortal    = "generate_204" // GET /generate_204 with a challenge
	StepLogin     = "login"        // DERP up to the ServerInfo
	StepWebSocket = "websocket"    // the same over WebSocket
	StepSTUN      = "stun"         // a Binding request
	StepSend      = "send"         // a packet from one client to another
	StepBandwidth = "bandwidth"    // many of them
)

// A measurement is the measuring of one relay.
type measurement struct {
	*prober
	*target
	relay *Relay
}

// measure takes all steps with one relay. Those that need a connection are left
// out when there is none.
func (p *prober) measure(ctx context.Context, t *target) *Relay {
	m := &measurement{p, t, &Relay{Name: t.name, Region: t.region}}
	if !p.NoSTUN && t.node.STUNPort >= 0 {
		m.step(ctx, StepSTUN, m.stun)
	}
	if !m.step(ctx, StepConnect, m.connect) {
		return m.relay
	}
	m.step(ctx, StepProbe, m.latencyProbe)
	m.step(ctx, StepPortal, m.portal)
	if p.WebSocket {
		m.step(ctx, StepWebSocket, m.webSocket)
	}
	if !m.step(ctx, StepLogin, m.login) {
		return m.relay
	}
	if m.step(ctx, StepSend, m.send) && p.Bandwidth.Bytes > 0 {
		m.step(ctx, StepBandwidth, m.bandwidth)
	}
	return m.relay
}

func (m *measurement) step(ctx context.Context, name string, f stepFunc) bool {
	s := m.take(ctx, name, f)
	m.relay.Steps = append(m.relay.Steps, s)
	return s.OK
}

// A stepFunc does one step and says something about its success.
type stepFunc func(ctx context.Context) (detail string, err error)

// take does a step within its time.
func (p *prober) take(ctx context.Context, name string, f stepFunc) Step {
	ctx, cancel := context.WithTimeout(ctx, p.StepTimeout)
	defer cancel()
	start := time.Now()
	detail, err := f(ctx)
	s := Step{Name: name, OK: err == nil, Detail: detail, Seconds: time.Since(start).Seconds()}
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.Error = fmt.Sprintf("not done after %v: %v", p.StepTimeout, err)
	case err != nil:
		s.Error = err.Error()
	}
	if err != nil {
		p.log.Debug("relay probe step failed", "step", name, "err", err)
	}
	return s
}

// measurePair sends from a relay to another one of its region.
func (p *prober) measurePair(ctx context.Context, x pair) *Pair {
	s := p.take(ctx, StepSend, func(ctx context.Context) (string, error) {
		return p.sendBetween(ctx, x.from, x.to, meshWait)
	})
	return &Pair{From: x.from.name, To: x.to.name, Steps: []Step{s}}
}

// connect completes the TLS handshake and looks at the certificates.
func (m *measurement) connect(ctx context.Context) (string, error) {
	s, err := m.dialer(m.target).DialTLS(ctx, m.alone())
	if err != nil {
		return "", err
	}
	defer s.Close()
	state, ok := s.TLS()
	if !ok {
		return "without TLS", nil
	}
	x := tlsOf(state)
	x.Pinned = strings.HasPrefix(m.node.CertName, "sha256-raw:") // DERP-128
	x.FastStart = !s.ServerKey.IsZero()
	m.relay.TLS = x
	if left := time.Until(x.Expires); left <= 0 { // the handshake lets it pass with InsecureForTests
		return "", fmt.Errorf("certificate has expired at %s", x.Expires.Format(time.RFC3339))
	}
	return fmt.Sprintf("%s, certificate good until %s", x.Version, x.Expires.Format(time.DateOnly)), nil
}

// tlsOf says what the handshake has shown. The MetaCert expires as well, but
// its dates mean nothing (DERP-108).
func tlsOf(state tls.ConnectionState) *TLS {
	x := &TLS{Version: tls.VersionName(state.Version)}
	for i, c := range state.PeerCertificates {
		if i == 0 {
			x.Issuer = c.Issuer.String()
		}
		if strings.HasPrefix(c.Subject.CommonName, derp.MetaCertPrefix) {
			continue
		}
		if x.Expires.IsZero() || c.NotAfter.Before(x.Expires) {
			x.Expires = c.NotAfter
		}
	}
	return x
}

// login expects the ServerInfo as the first message.
func (m *measurement) login(ctx context.Context) (string, error) {
	return m.loginWith(ctx, m.dialer(m.target))
}

func (m *measurement) webSocket(ctx context.Context) (string, error) {
	d := m.dialer(m.target)
	d.WebSocket = websocket.Dial
	return m.loginWith(ctx, d)
}

func (m *measurement) loginWith(ctx context.Context, d *derp.Dialer) (string, error) {
	c, err := m.join(ctx, d, m.target)
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	m.relay.ServerKey = c.conn.ServerKey()
	m.relay.RateLimit = c.info.TokenBucketBytesPerSecond
	return "relay " + c.conn.ServerKey().Short(), nil
}

func (m *measurement) send(ctx context.Context) (string, error) {
	return m.sendBetween(ctx, m.target, m.target, 0)
}
