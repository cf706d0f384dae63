package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
	"github.com/seed94491740/tsnode/state"
)

// authPause is how long a process that nobody watches goes on after its auth key
// was refused: what starts it again would ask the control server the same all the
// time (SVC-156).
const authPause = 5 * time.Second

// A foreground is a node in the foreground, and what belongs to it: forwards,
// socket, endpoints, and how it tells of itself.
type foreground struct {
	config   *configuration
	settings *actor.Cell[*settings.Settings] // in force; only the reloader replaces them
	std      stdio

	node     *node.Node
	forwards atomic.Pointer[proxy.Set]       // nil until they are opened
	socket   atomic.Pointer[localapi.Server] // nil until it is served
	notify   notifier
	stop     context.CancelFunc // ends all as a signal does
	device   *deviceKeeper      // nil without a TUN device
	hup      <-chan os.Signal   // has the configuration read again
	running  chan struct{}      // holds one once the node runs

	endpointConns *carry.Limit // of health and metrics

	console *console
	people  io.Writer // takes lines for people
	log     *slog.Logger
	level   *slog.LevelVar
	ring    *logRing
	secrets redactor // what a bug report leaves out
	problem string   // that was printed last, and has not been solved

	draining atomic.Bool // all is about to end
}

// errStdioEnded ends the process once the connection of -W has.
var errStdioEnded = errors.New("the connection of standard input and output has ended")

// run starts the node and all that belongs to it, and ends them when ctx ends, or
// the node does by itself.
func (f *foreground) run(ctx context.Context, specs []proxy.Spec) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	f.notify = dialNotifier(ctx, host.OS{}, f.log)
	defer f.notify.close()
	if err := f.node.Start(); err != nil {
		return err
	}
	err := actor.Run(context.WithoutCancel(ctx), func(serving context.Context, g *actor.Group) error {
		if err := f.start(serving, g, specs); err != nil {
			return err
		}
		r := &reloader{foreground: f}
		g.Go(r.Serve)
		return f.follow(ctx, serving)
	})
	if errors.Is(err, errStdioEnded) {
		err = nil
	}
	return f.end(ctx, err)
}

// end closes the node, and returns why all has ended.
func (f *foreground) end(ctx context.Context, err error) error {
	closeErr := f.node.Close()
	if ctx.Err() != nil {
		return closeErr // asked to stop
	}
	if errors.Is(err, node.ErrBadAuthKey) && f.exitsAlone() {
		err = f.tellEnd(err) // now: whoever waits for it need not wait for the pause
		f.log.Debug("waiting before the end, for what may start this process again", "for", authPause)
		actor.Sleep(ctx, authPause)
	}
	return errors.Join(err, closeErr)
}

// start opens what the settings name and has it run in g.
func (f *foreground) start(serving context.Context, g *actor.Group, specs []proxy.Spec) error {
	s := f.settings.Get()
	if err := f.serveEndpoints(serving, g, s); err != nil {
		return err
	}
	if err := f.serveSocket(g, s); err != nil {
		return err
	}
	if err := f.startForwards(serving, g, specs); err != nil {
		return err
	}
	g.Go((&progress{status: f.node.Status, tell: f.console.wait}).Serve)
	if s.Stdio != "" {
		g.Go(f.serveStdio)
	}
	if f.device != nil {
		g.Go(f.device.Serve)
	}
	if s.Timeout > 0 {
		g.Go(f.limitStart)
	}
	if _, ok := f.node.Store.(*state.Kube); ok {
		g.Go(f.tellSecret)
	}
	if period := watchdogPeriod(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")); period > 0 {
		g.Go(func(ctx context.Context) error {
			return f.notify.watchdog(ctx, period, func(ctx context.Context) error { return f.alive(ctx, period) })
		})
	}
	return nil
}

// alive asks the node's loops to turn within a limit, and logs which does not.
func (f *foreground) alive(ctx context.Context, limit time.Duration) error {
	asked, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f.node.Alive(asked)
	if err != nil && ctx.Err() == nil {
		f.log.Warn("the node hangs", "err", err)
	}
	return err
}

// startForwards opens forwards and proxies, and tells where they listen.
func (f *foreground) startForwards(serving context.Context, g *actor.Group, specs []proxy.Spec) error {
	s := f.settings.Get()
	c, err := f.proxyConfig(s)
	if err != nil {
		return err
	}
	set := proxy.NewSet(c)
	f.forwards.Store(set)
	g.Go(set.Serve)
	now, _ := atOnce(specs) // the rest is the reloader's
	err = set.Apply(serving, now)
	if err != nil && (s.ExitOnForwardFailure || s.Stdio != "") {
		return err
	}
	f.tellForwards(set.List())
	return nil
}

// serveStdio joins standard input and output with a connection, and ends all with
// that.
func (f *foreground) serveStdio(ctx context.Context) error {
	if _, err := f.node.Up(ctx); err != nil {
		return err
	}
	if err := proxy.Stdio(ctx, f.node.Dial, f.settings.Get().Stdio, f.std.in, f.std.out); err != nil {
		return err
	}
	return errStdioEnded
}

// maxTold is how many forwards are printed one by one.
const maxTold = 8

// tellForwards prints where forwards listen.
func (f *foreground) tellForwards(all []proxy.Status) {
	told := 0
	for _, s := range all {
		if s.Listen == "" {
			continue // the set has logged why
		}
		if told++; told <= maxTold {
			fmt.Fprintf(f.people, "tsnode: %s\n", forwardText(s))
		}
	}
	if told > maxTold {
		fmt.Fprintf(f.people, "tsnode: and %d more forwards\n", told-maxTold)
	}
}

// forwardText says where a forward listens, and what it leads to.
func forwardText(s proxy.Status) string {
	if s.Target == "" {
		return "proxy on " + s.Listen
	}
	return fmt.Sprintf("forwarding %s to %s", s.Listen, s.Target)
}

// limitStart ends all when the node is not on its tailnet in time.
func (f *foreground) limitStart(ctx context.Context) error {
	limit := f.settings.Get().Timeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := f.node.Up(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not on the tailnet within %v: %w", limit, err)
	}
	return err
}

// follow tells of the node until it ends by itself, or serving does because
// something has failed; when ctx ends, it lets connections end first.
func (f *foreground) follow(ctx, serving context.Context) error {
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(serving, cancel)()
	err := f.report(asked)
	if ctx.Err() != nil && serving.Err() == nil {
		f.drain(serving)
	}
	return err
}

// report prints the node's events until it stops, is logged out, or ctx ends.
func (f *foreground) report(ctx context.Context) error {
	ran := false
	for e := range f.node.Events(ctx) {
		if s, ok := e.(node.Stopped); ok {
			return s.Err
		}
		if isLogout(e) && !f.settings.Get().WaitForLogin {
			return errLoggedOut // by a request, whether it has run or not
		}
		f.tellEvent(e)
		switch e.(type) {
		case node.Running:
			ran = true
			f.notify.tell(notifyReady)
			f.noteRunning()
		case node.NeedsLogin:
			if ran && f.node.Status().State == node.StateNeedsLogin && !f.settings.Get().WaitForLogin {
				return errLoggedOut
			}
		}
	}
	return ctx.Err()
}

// isLogout reports whether an event tells that somebody has logged the node out.
func isLogout(e node.Event) bool {
	p, ok := e.(node.ControlProblem)
	return ok && errors.Is(p.Err, control.ErrLoggedOut)
}

// noteRunning tells the reloader that the node has its addresses.
func (f *foreground) noteRunning() {
	select {
	case f.running <- struct{}{}:
	default: // it has been told
	}
}

// tellEvent prints an event. A login URL is drawn on a terminal, for the camera of a
// phone; a bug report has neither.
func (f *foreground) tellEvent(e node.Event) {
	if l, ok := e.(node.NeedsLogin); ok {
		f.secrets.knowLogin(l.URL)
	}
	printEvent(f.people, f.node, e)
	switch e := e.(type) {
	case node.NeedsLogin:
		if f.console.terminal {
			io.WriteString(f.console, qrText(e.URL))
		}
	case node.ControlProblem:
		f.problem = e.Err.Error()
	case node.Running:
		f.problem = ""
	}
}

// errLoggedOut ends the process of a node that has run and does no longer
// (SVC-158).
var errLoggedOut = errors.New("the node is logged out, or its key has expired: log in again, by a start without --auth-key or with a fresh one; with --wait-for-login the process waits for 'tsnode login' instead")

// drain listens no more, and lets connections end by themselves for as long as the
// settings say (SVC-175).
func (f *foreground) drain(serving context.Context) {
	f.draining.Store(true)
	f.notify.tell(notifyStopping)
	limit := f.settings.Get().Drain
	ctx, cancel := context.WithTimeout(serving, limit)
	defer cancel()
	set := f.forwards.Load()
	if set == nil {
		return
	}
	if open := set.Connections(); open > 0 && limit > 0 {
		fmt.Fprintf(f.people, "tsnode: draining %s for up to %v; a second signal ends it now\n", plural(open, "connection"), limit)
	}
	if set.Drain(ctx) == nil {
		return
	}
	if open := set.Connections(); open > 0 {
		fmt.Fprintf(at(slog.LevelWarn, f.people), "tsnode: closing %s, still open after %v\n", plural(open, "connection"), limit)
	}
}

// plural counts things that have a regular name.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
