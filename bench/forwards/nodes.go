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

// runFar is the far node, and the tailnet itself: with an echo service, or as the way
// into the tailnet.
func runFar(ctx context.Context, enter bool, in io.Reader, out io.Writer) error {
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
	hello := greeting{URL: tailnet.URL(), AuthKey: key}
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		if enter {
			return runEnter(ctx, g, n, hello, in, out)
		}
		ln, err := n.Listen("tcp", port)
		if err != nil {
			return err
		}
		pc, err := n.ListenPacket("udp", port)
		if err != nil {
			return err
		}
		defer serve(g, ln, pc)()
		return greet(in, out, hello, debug.FreeOSMemory)
	})
}

// runEnter forwards from this machine to the near node.
func runEnter(ctx context.Context, g *actor.Group, n *node.Node, hello greeting, in io.Reader, out io.Writer) error {
	set, err := forward(ctx, g, n, proxy.ParseLocal, "0:near"+port, "0:near"+port+"/udp")
	if err != nil {
		return err
	}
	hello.TCP, hello.UDP = set.List()[0].Listen, set.List()[1].Listen
	return greet(in, out, hello, debug.FreeOSMemory)
}

// runServer is the service, on this machine.
func runServer(ctx context.Context, in io.Reader, out io.Writer) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer serve(g, ln, pc)()
		return greet(in, out, greeting{TCP: ln.Addr().String(), UDP: pc.LocalAddr().String()}, debug.FreeOSMemory)
	})
}

// serve has the service run until end is called.
func serve(g *actor.Group, ln net.Listener, pc net.PacketConn) (end func()) {
	g.Go(func(context.Context) error { return echoStreams(g, ln) })
	g.Go(func(context.Context) error { return echoDatagrams(pc) })
	return func() { ln.Close(); pc.Close() }
}

// forward has forwards run.
func forward(ctx context.Context, g *actor.Group, n *node.Node, parse func(string) ([]proxy.Spec, error), texts ...string) (*proxy.Set, error) {
	set := proxy.NewSet(proxy.Config{Tailnet: n, Host: host.OS{}, Logger: logger})
	g.Go(set.Serve)
	for _, text := range texts {
		specs, err := parse(text)
		if err != nil {
			return nil, err
		}
		if err := set.Add(ctx, specs...); err != nil {
			return nil, err
		}
	}
	return set, nil
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
			// Without splice, which takes a pipe for each connection, and with it more files
			// than a process may have.
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
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

// runNear is the near node, with forwards to the far one, or to the service of this
// machine that args name.
func runNear(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 && len(args) != 5 {
		return errors.New("want the control server's URL, an auth key, a limit of memory and perhaps two addresses of a service")
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
	parse, texts := proxy.ParseLocal, []string{"0:far" + port, "0:far" + port + "/udp"}
	if len(args) == 5 {
		parse, texts = proxy.ParseRemote, []string{port + ":" + args[3], port + ":" + args[4] + "/udp"}
	}
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		set, err := forward(ctx, g, n, parse, texts...)
		if err != nil {
			return err
		}
		at := set.List()
		err = greet(in, out, greeting{TCP: at[0].Listen, UDP: at[1].Listen}, debug.FreeOSMemory)
		for _, s := range set.List() {
			fmt.Fprintf(os.Stderr, "%s: %d in all, %d failed, %d refused, %d datagrams dropped; %s\n", s.Forward, s.Total, s.Failed, s.Refused, s.Dropped, s.LastError)
		}
		return err
	})
}
