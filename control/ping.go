package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Bounds of ping requests (control.md sections 12.1 and 14.1).
const (
	headTimeout  = 15 * time.Second // a liveness ping
	typedTimeout = 10 * time.Second // a typed ping
	replyTimeout = 15 * time.Second // the answer to one

	maxPings     = 8           // requests under way; more are not answered
	pingInterval = time.Second // one request in so much time, over a longer time
	pingBurst    = 20
	maxPingTypes = 4 // of one request
)

// A pinger answers ping requests of the server, each as a child of stream, so
// that none holds up the map.
type pinger struct {
	*Client
	group   *actor.Group
	room    chan struct{}
	limit   *rate.Limiter
	lastURL string // a URL equal to the last one is not answered again
}

func newPinger(c *Client, g *actor.Group) *pinger {
	return &pinger{Client: c, group: g, room: make(chan struct{}, maxPings), limit: rate.NewLimiter(rate.Every(pingInterval), pingBurst)}
}

// answer starts the answer to one request, or drops it when there are too many.
func (p *pinger) answer(r *PingRequest) {
	if r.URL == "" || r.URL == p.lastURL {
		return
	}
	p.lastURL = r.URL
	if !p.limit.Allow() {
		p.log.Warn("control server pings too often; a ping was not answered")
		return
	}
	select {
	case p.room <- struct{}{}:
	default:
		p.log.Warn("control server pings too often; a ping was not answered")
		return
	}
	p.group.Go(func(ctx context.Context) error {
		defer func() { <-p.room }()
		// What the answer runs is not ours: its panic is not the stream's.
		err := actor.Guard(ctx, func(ctx context.Context) error { return p.run(ctx, r) })
		level := slog.LevelDebug
		if r.Log {
			level = slog.LevelInfo
		}
		p.log.Log(ctx, level, "answered the control server's ping", "types", r.Types, "err", err)
		return nil
	})
}

func (p *pinger) run(ctx context.Context, r *PingRequest) error {
	switch r.Types {
	case "":
		return p.head(ctx, r)
	case PingC2N:
		return p.c2n(ctx, r)
	}
	return p.typed(ctx, r)
}

// head shows that this node lives (CTL-59).
func (p *pinger) head(ctx context.Context, r *PingRequest) error {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	return p.reply(ctx, http.MethodHead, r.URL, r.URLIsNoise, nil)
}

// typed pings a peer in each way asked for. One that fails is not reported
// (CTL-60).
func (p *pinger) typed(ctx context.Context, r *PingRequest) error {
	if p.cfg.Pinger == nil || !r.IP.IsValid() {
		return fmt.Errorf("ping of types %q: %w", r.Types, http.ErrNotSupported)
	}
	for i, kind := range strings.Split(r.Types, ",") {
		if i == maxPingTypes {
			return fmt.Errorf("more than %d types in one ping", maxPingTypes)
		}
		if err := p.one(ctx, r, kind); err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) one(ctx context.Context, r *PingRequest, kind string) error {
	pingCtx, cancel := context.WithTimeout(ctx, typedTimeout)
	defer cancel()
	answer, err := p.cfg.Pinger.Ping(pingCtx, r.IP, kind)
	if err != nil {
		return err
	}
	answer.Type = kind
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	replyCtx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	return p.reply(replyCtx, http.MethodPost, r.URL, r.URLIsNoise, body)
}

// reply sends an answer to a URL of the server's choice: inside the Noise
// connection, where only its path counts, or outside (CTL-70).
func (p *pinger) reply(ctx context.Context, method, to string, noise bool, body []byte) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	send := p.link.RoundTrip
	if noise {
		u.Scheme, u.Host = "https", p.url.Host
	} else {
		if err := p.mayAsk(u); err != nil {
			return err
		}
		t := p.link.dialer.transport(p.link.dialer.tlsConfig(), netip.Addr{}, true)
		defer t.CloseIdleConnections()
		send = t.RoundTrip // follows no redirect
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header["User-Agent"] = []string{""} // none
	resp, err := send(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// mayAsk keeps a server from making this node ask others: only the control
// host itself is, over http or https.
func (p *pinger) mayAsk(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("ping URL: scheme %q", u.Scheme)
	case !strings.EqualFold(u.Hostname(), p.url.Hostname()):
		return fmt.Errorf("ping URL: host %q is not that of the control server", u.Hostname())
	}
	return nil
}
