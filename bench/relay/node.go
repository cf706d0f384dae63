package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/packet"
)

const (
	bulkPort  = 5201            // TCP port of a node's sink
	blockSize = 128 << 10       // bytes written at once
	dialTry   = 5 * time.Second // until a dial is given up and tried again
)

// runNode is our node, without UDP, until standard input ends. Each line of it
// is "send ADDRESS DURATION".
func runNode(ctx context.Context, o roleOptions) error {
	n := &node.Node{
		ControlURL: o.control, AuthKey: o.authKey, Hostname: o.name, Network: deaf{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Proxy:  func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	defer n.Close()
	st, err := n.Up(ctx)
	if err != nil {
		return err
	}
	ln, err := n.Listen("tcp", ":"+strconv.Itoa(bulkPort))
	if err != nil {
		return err
	}
	go sink(ln)
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{IP: st.TailscaleIPs[0].String()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := out.Encode(obey(ctx, n, lines.Text())); err != nil {
			return err
		}
	}
	return nil
}

// obey does what a line says.
func obey(ctx context.Context, n *node.Node, line string) (a answer) {
	var to, length string
	if _, err := fmt.Sscanf(line, "send %s %s", &to, &length); err != nil {
		return answer{Error: fmt.Sprintf("%q: %v", line, err)}
	}
	d, err := time.ParseDuration(length)
	if err == nil {
		a, err = send(ctx, n, to, d)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	a.Path = pathTo(n, to)
	return a
}

// send sends for a time and waits until the sink says how much it has.
func send(ctx context.Context, n *node.Node, to string, length time.Duration) (a answer, err error) {
	c, err := dial(ctx, n, net.JoinHostPort(to, strconv.Itoa(bulkPort)))
	if err != nil {
		return a, err
	}
	defer c.Close()
	block, began := make([]byte, blockSize), time.Now()
	for time.Since(began) < length {
		if _, err := c.Write(block); err != nil {
			return a, err
		}
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return a, err
	}
	err = binary.Read(c, binary.BigEndian, &a.Bytes)
	a.Seconds = time.Since(began).Seconds()
	return a, err
}

// dial tries until it succeeds: at first the nodes know no relay.
func dial(ctx context.Context, n *node.Node, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, dialTry)
		c, err := n.Dial(try, "tcp", addr)
		cancel()
		if err == nil {
			return c, nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return nil, err
		}
	}
}

// pathTo returns the path to a peer, as the node's status tells it.
func pathTo(n *node.Node, to string) string {
	ip, err := netip.ParseAddr(to)
	if err != nil {
		return err.Error()
	}
	for _, p := range n.Status().Peers {
		if len(p.TailscaleIPs) > 0 && p.TailscaleIPs[0] == ip {
			return p.Path
		}
	}
	return "none"
}

// sink reads connections to their end and answers with the number of bytes.
func sink(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			n, _ := io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, 2*blockSize))
			binary.Write(c, binary.BigEndian, n)
		}()
	}
}

// deaf is the machine without UDP: no direct path can come up.
type deaf struct{ host.OS }

// ListenUDP implements host.Network.
func (deaf) ListenUDP(_ context.Context, family string, port uint16) (host.UDPConn, error) {
	addr := netip.IPv4Unspecified()
	if family == "udp6" {
		addr = netip.IPv6Unspecified()
	}
	if port == 0 {
		port = 41641
	}
	return &deafSocket{netip.AddrPortFrom(addr, port), make(chan struct{})}, nil
}

// A deafSocket hears nothing and sends nothing.
type deafSocket struct {
	addr   netip.AddrPort
	closed chan struct{}
}

func (s *deafSocket) ReadBatch([]host.Message) (int, error) {
	<-s.closed
	return 0, net.ErrClosed
}

func (*deafSocket) WriteBursts(netip.AddrPort, []packet.Burst) error { return nil }

func (s *deafSocket) LocalAddr() netip.AddrPort { return s.addr }

func (s *deafSocket) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}
