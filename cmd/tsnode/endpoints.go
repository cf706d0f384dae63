package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/localapi"
)

// Bounds of the HTTP endpoints.
const (
	endpointTimeout   = 10 * time.Second // to read a request, and to write its answer
	endpointIdle      = time.Minute      // between requests of a connection
	maxEndpointHeader = 8 << 10          // bytes
)

// serveEndpoints opens the HTTP endpoints that the settings name: health and
// metrics, which may share an address.
func (f *foreground) serveEndpoints(ctx context.Context, g *actor.Group, s *settings.Settings) error {
	muxes := make(map[string]*http.ServeMux)
	mux := func(addr string) *http.ServeMux {
		if muxes[addr] == nil {
			muxes[addr] = http.NewServeMux()
		}
		return muxes[addr]
	}
	if s.Health != "" {
		f.addHealth(mux(s.Health))
	}
	if s.Metrics != "" {
		if err := f.addMetrics(mux(s.Metrics)); err != nil {
			return err
		}
	}
	for addr, m := range muxes {
		ln, err := host.OS{}.Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("health and metrics: %w", err)
		}
		fmt.Fprintf(f.people, "tsnode: health and metrics on http://%v\n", ln.Addr())
		e := &endpoint{listener: ln, mux: m, log: f.log}
		g.Go(e.Serve)
	}
	return nil
}

// An endpoint is an actor that answers HTTP requests.
type endpoint struct {
	listener net.Listener
	mux      *http.ServeMux
	log      *slog.Logger
}

// String names the actor.
func (*endpoint) String() string { return "endpoint" }

// Serve answers until ctx ends.
func (e *endpoint) Serve(ctx context.Context) error {
	h := &http.Server{
		Handler: e.mux, ReadTimeout: endpointTimeout, WriteTimeout: endpointTimeout, IdleTimeout: endpointIdle,
		MaxHeaderBytes: maxEndpointHeader, ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { h.Close() })()
	err := h.Serve(e.listener)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// addMetrics adds /metrics.
func (f *foreground) addMetrics(m *http.ServeMux) error {
	api, err := f.node.LocalAPI()
	if err != nil {
		return err
	}
	write := metricsOf(api)
	m.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if err := write(w); err != nil {
			f.log.Debug("metrics were not read to their end", "err", err)
		}
	})
	return nil
}

// serveSocket serves the unix socket that the settings name.
func (f *foreground) serveSocket(g *actor.Group, s *settings.Settings) error {
	if s.Socket == "" {
		return nil
	}
	operator, err := userNumber(s.Operator)
	if err != nil {
		return err
	}
	server, err := localServer(f.node, operator, f.stop, f.log)
	if err != nil {
		return err
	}
	server.Handle(http.MethodGet, endpointBugReport, localapi.MayWrite, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, f.bugReport()) })
	ln, err := localapi.Listen(s.Socket)
	if errors.Is(err, syscall.EROFS) && s.From("socket") != "--socket" {
		f.log.Warn("this node serves no socket: mount a volume where that is to be, or unset TS_SOCKET", "err", err)
		return nil // the image names one; SVC-154
	}
	if err != nil {
		return err
	}
	g.Go(func(ctx context.Context) error { return server.Serve(ctx, ln) })
	return nil
}

// userNumber returns the number of a user, who is named or numbered; -1 for nobody.
func userNumber(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return -1, &usageError{fmt.Errorf("--operator: %w", err)}
	}
	n, err := strconv.Atoi(u.Uid)
	if err != nil {
		return -1, &usageError{errors.New("--operator: users have no numbers on this system: leave it out")}
	}
	return n, nil
}
