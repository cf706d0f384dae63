package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/internal/settings"
)

// Bounds of the HTTP endpoints.
const (
	endpointTimeout   = 10 * time.Second // to read a request, and to write its answer
	endpointIdle      = time.Minute      // between requests of a connection
	maxEndpointHeader = 8 << 10          // bytes
	maxEndpointConns  = 64               // in all; of one source half of those at most, see carry.Limit
)

// serveEndpoints opens the HTTP endpoints that the settings name: health and
// metrics, which may share an address.
func (f *foreground) serveEndpoints(ctx context.Context, g *actor.Group, s *settings.Settings) error {
	f.endpointConns = carry.NewLimit(maxEndpointConns, 0, nil)
	muxes := make(map[string]*http.ServeMux)
	mux := func(addr string) *http.ServeMux {
		addr = everyAddress(addr)
		if muxes[addr] == nil {
			muxes[addr] = http.NewServeMux()
		}
		return muxes[addr]
	}
	if s.Health != "" {
		f.addHealth(mux(s.Health))
	}
	if s.Metrics != "" {
		mux(s.Metrics).HandleFunc("GET /metrics", f.answerMetrics)
	}
	for addr, m := range muxes {
		ln, err := host.OS{}.Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("health and metrics: %w", err)
		}
		fmt.Fprintf(f.people, "tsnode: health and metrics on http://%v\n", ln.Addr())
		g.Go(newEndpoint(ln, f.endpointConns, m, f.log).Serve)
	}
	return nil
}

// everyAddress writes "all addresses" such that a system without IPv6 understands
// it, which has no address [::].
func everyAddress(addr string) string {
	if port, ok := strings.CutPrefix(addr, "[::]:"); ok {
		return ":" + port
	}
	return addr
}

// An endpoint is an actor that answers HTTP requests, on a bounded number of
// connections: whoever reaches the port must not take the descriptors that the
// node needs.
type endpoint struct {
	acceptor carry.Acceptor
	handed   *carry.Handed
	server   http.Server
}

func newEndpoint(ln net.Listener, conns *carry.Limit, h http.Handler, log *slog.Logger) *endpoint {
	e := &endpoint{
		handed:   carry.NewHanded(ln.Addr()),
		acceptor: carry.Acceptor{Listener: ln, Limit: conns, Log: log},
		server: http.Server{
			Handler: h, ReadTimeout: endpointTimeout, WriteTimeout: endpointTimeout, IdleTimeout: endpointIdle,
			MaxHeaderBytes: maxEndpointHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	e.acceptor.Handle = e.handed.Hand
	return e
}

// String names the actor.
func (*endpoint) String() string { return "endpoint" }

// Serve answers until ctx ends.
func (e *endpoint) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(e.answer)
		return e.acceptor.Serve(ctx)
	})
}

func (e *endpoint) answer(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { e.server.Close() })()
	err := e.server.Serve(e.handed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
