package vpn

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// How long a node may take, which is less than managers wait for the answers
// (VPN-19).
const (
	startTimeout = 50 * time.Second // to join its tailnet
	closeTimeout = 4 * time.Second  // to close after Stop
)

// A Tunnel is the side of a stream that runs a node when the manager says so.
// Its fields must not change while it serves.
type Tunnel struct {
	// NewNode makes the node that the options describe, and starts nothing. It is
	// required.
	NewNode func(StartOptions) (Node, error)

	// Header is the order of the header that is sent. Default: HeaderAuto.
	Header HeaderOrder

	// Grouping says what is a workspace. Default: GroupByOwner.
	Grouping Grouping

	// MTU is that of the interface, in bytes. Default: 1280.
	MTU int

	// AlwaysSettings sends network settings also to a manager that has handed over no
	// descriptor (VPN-40).
	AlwaysSettings bool

	// StartTimeout is how long a node may take to join. Default: 50 s.
	StartTimeout time.Duration

	// LogLevel is the least level of the node's log that the manager is told. Default:
	// slog.LevelInfo.
	LogLevel slog.Leveler

	// Logger takes what the tunnel has to say of the stream itself, which the manager
	// is not told. Default: none.
	Logger *slog.Logger
}

// check fills in defaults.
func (t Tunnel) check() (Tunnel, error) {
	if t.NewNode == nil {
		return t, errors.New("vpn: Tunnel.NewNode is missing: it makes the node")
	}
	t.Grouping = cmp.Or(t.Grouping, GroupByOwner)
	if t.Grouping != GroupByOwner && t.Grouping != GroupByNode {
		return t, fmt.Errorf("vpn: grouping %q: want %s or %s", string(t.Grouping), GroupByOwner, GroupByNode)
	}
	t.MTU, t.StartTimeout = cmp.Or(t.MTU, defaultMTU), cmp.Or(t.StartTimeout, startTimeout)
	if t.LogLevel == nil {
		t.LogLevel = slog.LevelInfo
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	return t, nil
}

// Serve speaks with the manager at the other end of a stream until one of them
// ends it; then the node is closed and the stream, too. It returns nil when the
// manager has asked for the end or closed the stream. A tunnel may serve any
// number of streams.
func (t *Tunnel) Serve(ctx context.Context, s Stream) error {
	config, err := t.check()
	if err != nil {
		s.Close()
		return err
	}
	in := bufio.NewReaderSize(s, readBuffer)
	version, err := shake(ctx, s, in, roleTunnel, t.Header)
	if err != nil {
		return err
	}
	config.Logger.Debug("vpn: a manager is there", "version", version)
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		defer s.Close()
		logs := newLogQueue()
		l := newLink(s, in, decodeManager, logs, config.Logger)
		session := &session{Tunnel: config, link: l, logs: logs, updater: newUpdater(l, config.Grouping, config.Logger)}
		g.Go(l.read)
		g.Go(l.write)
		g.Go(session.updater.serve)
		return session.serve(ctx, g)
	})
}
