package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// port is the service's, over TCP and UDP.
const port = ":7"

var logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

func direct(*http.Request) (*url.URL, error) { return nil, nil }

// runFar is the far node, with an echo service, and the tailnet itself.
func runFar(ctx context.Context, in io.Reader, out io.Writer) error {
	tailnet, err := devnet.Start(ctx, devnet.Config{Logger: logger})
	if err != nil {
		return err
	}
	defer tailnet.Close()
	key := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	n := &node.Node{Hostname: "far", ControlURL: tailnet.URL(), AuthKey: key, Logger: logger, Proxy: direct}
	defer n.Close()
	if _, err := n.Up(ctx); err != nil {
		return err
	}
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		ln, err := n.Listen("tcp", port)
		if err != nil {
			return err
		}
		pc, err := n.ListenPacket("udp", port)
		if err != nil {
			return err
		}
		defer ln.Close()
		defer pc.Close()
		g.Go(func(context.Context) error { return echoStreams(g, ln) })
		g.Go(func(context.Context) error { return echoDatagrams(pc) })
		return greet(in, out, greeting{URL: tailnet.URL(), AuthKey: key}, debug.FreeOSMemory)
	})
}

func echoStreams(g *actor.Group, ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		g.Go(func(ctx context.Context) error {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			io.Copy(c, c)
			return nil
		})
	}
}

func echoDatagrams(pc net.PacketConn) error {
	for b := make([]byte, 2048); ; {
		n, from, err := pc.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err == nil {
			pc.WriteTo(b[:n], from)
		}
	}
}

// runNear is the near node, with forwards to the far one.
func runNear(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("want the control server's URL, an auth key and a limit of memory")
	}
	limit, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	n := &node.Node{Hostname: "near", ControlURL: args[0], AuthKey: args[1], MemoryLimit: limit, Logger: logger, Proxy: direct}
	defer n.Close()
	if _, err := n.Up(ctx); err != nil {
		return err
	}
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		set := proxy.NewSet(proxy.Config{Tailnet: n, Host: host.OS{}, Logger: logger})
		g.Go(set.Serve)
		var want []proxy.Spec
		for _, text := range []string{"0:far" + port, "0:far" + port + "/udp"} {
			specs, err := proxy.ParseLocal(text)
			if err != nil {
				return err
			}
			want = append(want, specs...)
		}
		if err := set.Apply(ctx, want); err != nil {
			return err
		}
		at := set.List()
		err := greet(in, out, greeting{TCP: at[0].Listen, UDP: at[1].Listen}, debug.FreeOSMemory)
		for _, s := range set.List() {
			fmt.Fprintf(os.Stderr, "%s: %d in all, %d failed, %d refused; %s\n", s.Forward, s.Total, s.Failed, s.Refused, s.LastError)
		}
		return err
	})
}
