package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

const (
	demoTimeout  = 15 * time.Second // for all checks together
	demoPings    = 20               // round trips measured; the median is shown
	demoBulk     = 32 << 20         // bytes moved to measure throughput, at most
	demoBulkTime = 2 * time.Second  // that moving them may take
	demoBlock    = 256 << 10        // bytes of one write
	demoPage     = "Hello from a tailnet in one process.\n"
)

func newDemo() *cobra.Command {
	var once, verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show two nodes on an embedded tailnet",
		Long: `Start an embedded tailnet and two nodes on the loopback interface, serve a
page on one, forward a local port to it through the other, check the round
trip and print the path, the time to Running, the round-trip latency and the
throughput. Needs no network and no root.`,
		Example: "  tsnode demo\n  tsnode demo --once",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := demo{out: cmd.OutOrStdout(), log: slog.New(slog.DiscardHandler), once: once}
			if verbose {
				d.log = newLogger(cmd.ErrOrStderr(), true)
			}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit after the check: 0 if all went well")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what the nodes do")
	return cmd
}

// A demo is one run of tsnode demo.
type demo struct {
	out  io.Writer
	log  *slog.Logger
	once bool

	server, client *node.Node
}

func (d *demo) run(ctx context.Context) error {
	check, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("the demo's checks took longer than %v", demoTimeout))
	defer cancel()
	tailnet, err := devnet.Start(check, devnet.Config{Logger: d.log})
	if err != nil {
		return err
	}
	defer tailnet.Close()
	if err := d.join(check, tailnet); err != nil {
		return err
	}
	defer d.server.Close()
	defer d.client.Close()
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		addr, err := d.serve(g)
		if err != nil {
			return err
		}
		if err := d.check(check, addr); err != nil {
			return err
		}
		if d.once {
			return nil
		}
		fmt.Fprintf(d.out, "\nServing http://%v until interrupted (Ctrl-C).\n", addr)
		<-ctx.Done()
		return nil
	})
}

// tellUp starts a node and tells when it runs, or why not.
func tellUp(ctx context.Context, n *node.Node, up chan<- error) {
	_, err := n.Up(ctx)
	up <- err
}

// join starts both nodes at once and prints how long they took.
func (d *demo) join(ctx context.Context, tailnet *devnet.Net) error {
	d.server = d.newNode(tailnet, "server")
	d.client = d.newNode(tailnet, "client")
	began := time.Now()
	up := make(chan error, 2)
	for _, n := range []*node.Node{d.server, d.client} {
		go tellUp(ctx, n, up)
	}
	err := <-up
	if err2 := <-up; err == nil {
		err = err2
	}
	if err != nil {
		d.server.Close()
		d.client.Close()
		return fmt.Errorf("nodes did not come up: %w", err)
	}
	fmt.Fprintf(d.out, "time to Running   %v (two nodes)\n", time.Since(began).Round(time.Millisecond))
	return nil
}

func (d *demo) newNode(tailnet *devnet.Net, name string) *node.Node {
	return &node.Node{
		Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{Reusable: true}),
		Ephemeral: true, Logger: d.log.With("node", name),
		Proxy: noProxy,
	}
}

// serve starts the page and the echo on the server, and the forward to the page
// through the client. It returns the forward's address.
func (d *demo) serve(g *actor.Group) (net.Addr, error) {
	page, err := d.server.Listen("tcp", ":80")
	if err != nil {
		return nil, err
	}
	echo, err := d.server.Listen("tcp", ":7")
	if err != nil {
		return nil, err
	}
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	web := &http.Server{Handler: http.HandlerFunc(servePage), ReadHeaderTimeout: 10 * time.Second}
	forward := proxy.NewForward(local, d.client.Dial, "server:80", d.log)
	g.Go(func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { web.Close() })
		defer stop()
		if err := web.Serve(page); ctx.Err() == nil {
			return err
		}
		return ctx.Err()
	})
	g.Go(func(ctx context.Context) error { return serveEcho(ctx, echo) })
	g.Go(forward.Serve)
	return local.Addr(), nil
}

func servePage(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, demoPage) }

// serveEcho answers each connection with what it sends.
func serveEcho(ctx context.Context, ln net.Listener) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		stop := context.AfterFunc(ctx, func() { ln.Close() })
		defer stop()
		for {
			c, err := ln.Accept()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return err
			}
			g.Go(func(ctx context.Context) error {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				io.Copy(c, c)
				return nil
			})
		}
	})
}

// check fetches the page through the forward, then measures.
func (d *demo) check(ctx context.Context, addr net.Addr) error {
	if err := fetchPage(ctx, addr); err != nil {
		return fmt.Errorf("page through the forwarded port: %w", err)
	}
	rtt, size, rate, err := d.measure(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	fmt.Fprintf(d.out, "path              %s\n", d.path())
	fmt.Fprintf(d.out, "round trip        %v (median of %d)\n", rtt.Round(time.Microsecond), demoPings)
	fmt.Fprintf(d.out, "throughput        %.0f Mbit/s (%.0f MiB echoed)\n", rate, float64(size)/(1<<20))
	fmt.Fprintln(d.out, "check             ok: the page came back through the forwarded port")
	return nil
}

func fetchPage(ctx context.Context, addr net.Addr) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+"/", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return err
	}
	if string(body) != demoPage {
		return fmt.Errorf("got %q, want %q", body, demoPage)
	}
	return nil
}

// path tells how the client reaches the server.
func (d *demo) path() string {
	for _, p := range d.client.Status().Peers {
		if p.HostName == "server" {
			return p.Path
		}
	}
	return "unknown"
}

// measure returns the median round trip of a byte, the bytes moved through an
// echo, and the throughput in Mbit/s.
func (d *demo) measure(ctx context.Context) (rtt time.Duration, size int, mbit float64, err error) {
	c, err := d.client.Dial(ctx, "tcp", "server:7")
	if err != nil {
		return 0, 0, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if rtt, err = medianRTT(c); err != nil {
		return 0, 0, 0, err
	}
	size, mbit, err = bulk(ctx, c)
	return rtt, size, mbit, err
}

func medianRTT(c net.Conn) (time.Duration, error) {
	var times []time.Duration
	b := []byte{1}
	for range demoPings {
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// bulk sends random bytes, demoBulk of them or for as long as demoBulkTime,
// checks that the same come back, and returns how many, and the rate of one
// direction.
func bulk(ctx context.Context, c net.Conn) (size int, mbit float64, err error) {
	block := make([]byte, demoBlock)
	rand.Read(block)
	began := time.Now()
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) (err error) {
		stop := context.AfterFunc(ctx, func() { c.Close() }) // one of them has failed: unblocks the other
		defer stop()
		g.Go(func(context.Context) error { return sendBulk(c, block, began) })
		if size, err = readBulk(c, block); err != nil {
			c.Close()
		}
		return err
	})
	return size, float64(size) * 8 / 1e6 / time.Since(began).Seconds(), err
}

// sendBulk sends blocks, and then the end of the stream.
func sendBulk(c net.Conn, block []byte, began time.Time) error {
	for n := 0; n < demoBulk && time.Since(began) < demoBulkTime; n += len(block) {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T cannot be closed for writing alone", c)
	}
	return half.CloseWrite()
}

// readBulk compares blocks until the end of the stream.
func readBulk(c net.Conn, block []byte) (size int, err error) {
	got := make([]byte, len(block))
	for {
		switch _, err := io.ReadFull(c, got); {
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return size, err
		case !bytes.Equal(got, block):
			return size, errors.New("the echo differs from what was sent")
		}
		size += len(block)
	}
}
