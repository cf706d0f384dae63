package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"strconv"
	"syscall"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/localapi"
)

// serveSocket serves the unix socket that the settings name.
func (f *foreground) serveSocket(g *actor.Group, s *settings.Settings) error {
	if s.Socket == "" {
		return nil
	}
	operator, err := userNumber(s.Operator)
	if err != nil {
		return err
	}
	server, err := localServer(f.node, operator, f.stop, f.writeMetrics, f.log)
	if err != nil {
		return err
	}
	f.socket.Store(server)
	server.Handle(http.MethodGet, endpointBugReport, localapi.MayWrite, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, f.bugReport()) })
	f.addForwards(server)
	ln, err := localapi.Listen(s.Socket)
	if errors.Is(err, syscall.EROFS) && s.From("socket") != "--socket" {
		f.log.Warn("this node serves no socket: mount a volume where that is to be, or unset TS_SOCKET", "err", err)
		return nil // the image names one; SVC-154
	}
	if err != nil && !errors.Is(err, localapi.ErrInUse) {
		return fmt.Errorf("%w: name a path in a folder that this user may write to, with --socket or TS_SOCKET", err)
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
