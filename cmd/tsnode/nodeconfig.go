package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
)

// newNode returns the node that settings describe, without a logger. Standard
// input may hold the auth key.
func newNode(ctx context.Context, s *settings.Settings, stdin io.Reader, warn io.Writer) (*node.Node, error) {
	authKey, err := authKeyOf(ctx, s, stdin, warn)
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, s)
	if err != nil {
		return nil, err
	}
	if authKey == "" {
		authKey = storedAuthKey(store)
	}
	return &node.Node{
		Hostname: s.Hostname, AuthKey: authKey, ControlURL: s.LoginServer, Dir: s.StateDir, Store: store,
		Ephemeral: s.Ephemeral, AdvertiseTags: s.Tags, Port: s.Port, MemoryLimit: s.MemoryLimit,
		IgnoreDNS:    !s.AcceptDNS,
		AcceptRoutes: s.AcceptRoutes, AcceptRoutesFrom: s.AcceptRoutesFrom,
		ExitNode: s.ExitNode, ExitNodeAllowLANAccess: s.ExitNodeAllowLANAccess,
		AdvertiseRoutes: s.AdvertiseRoutes, AdvertiseExitNode: s.AdvertiseExitNode, ShieldsUp: s.ShieldsUp,
	}, nil
}

// authKeyOf returns the auth key that the settings name.
func authKeyOf(ctx context.Context, s *settings.Settings, stdin io.Reader, warn io.Writer) (string, error) {
	if s.From("auth-key") != "--auth-key" {
		warn = io.Discard // only a command line is there for others to see
	}
	return readAuthKey(ctx, s.AuthKey, stdin, warn)
}

// newLogger logs what an operator acts on, and all with verbose.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: logLevel(verbose)}))
}

func logLevel(verbose bool) slog.Level {
	if verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// newQuietLogger logs what went wrong.
func newQuietLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
