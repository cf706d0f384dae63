// Command node is a tsnet node without direct paths. It does what the node of
// bench/relay does, and says the same.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

const (
	bulkPort  = 5201             // TCP port of a node's sink
	blockSize = 128 << 10        // bytes written at once
	dialTry   = 5 * time.Second  // until a dial is given up and tried again
	dialWait  = 60 * time.Second // for all dials
)

// An answer is what this process says to its parent.
type answer struct {
	IP      string
	Bytes   int64
	Seconds float64
	Path    string
	Error   string
}

func main() {
	s := &tsnet.Server{Logf: logger.Discard, UserLogf: logger.Discard}
	flag.StringVar(&s.ControlURL, "control", "", "URL of the control server")
	flag.StringVar(&s.AuthKey, "authkey", "", "how the node joins")
	flag.StringVar(&s.Hostname, "name", "", "host name of the node")
	flag.StringVar(&s.Dir, "dir", "", "folder for its state")
	verbose := flag.Bool("verbose", false, "write the node's log to standard error")
	flag.Parse()
	if *verbose {
		s.Logf = log.Printf
	}
	envknob.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	envknob.Setenv("TS_DEBUG_ALWAYS_USE_DERP", "true")
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *tsnet.Server) error {
	defer s.Close()
	st, err := s.Up(ctx)
	if err != nil {
		return err
	}
	ln, err := s.Listen("tcp", ":"+strconv.Itoa(bulkPort))
	if err != nil {
		return err
	}
	go sink(ln)
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{IP: st.TailscaleIPs[0].String()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := out.Encode(obey(ctx, s, lines.Text())); err != nil {
			return err
		}
	}
	return nil
}

// obey does what a line says.
func obey(ctx context.Context, s *tsnet.Server, line string) (a answer) {
	var to, length string
	if _, err := fmt.Sscanf(line, "send %s %s", &to, &length); err != nil {
		return answer{Error: fmt.Sprintf("%q: %v", line, err)}
	}
	d, err := time.ParseDuration(length)
	if err == nil {
		a, err = send(ctx, s, to, d)
	}
	if err == nil {
		a.Path, err = pathTo(ctx, s, to)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return a
}

// send sends for a time and waits until the sink says how much it has.
func send(ctx context.Context, s *tsnet.Server, to string, length time.Duration) (a answer, err error) {
	c, err := dial(ctx, s, net.JoinHostPort(to, strconv.Itoa(bulkPort)))
	if err != nil {
		return a, err
	}
	defer c.Close()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return a, errors.New("connection has no CloseWrite")
	}
	block, began := make([]byte, blockSize), time.Now()
	for time.Since(began) < length {
		if _, err := c.Write(block); err != nil {
			return a, err
		}
	}
	if err := half.CloseWrite(); err != nil {
		return a, err
	}
	err = binary.Read(c, binary.BigEndian, &a.Bytes)
	a.Seconds = time.Since(began).Seconds()
	return a, err
}

// dial tries until it succeeds: at first the nodes know no relay.
func dial(ctx context.Context, s *tsnet.Server, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, dialTry)
		c, err := s.Dial(try, "tcp", addr)
		cancel()
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pathTo returns the path to a peer, as the node's status tells it.
func pathTo(ctx context.Context, s *tsnet.Server, to string) (string, error) {
	ip, err := netip.ParseAddr(to)
	if err != nil {
		return "", err
	}
	client, err := s.LocalClient()
	if err != nil {
		return "", err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range st.Peer {
		if len(p.TailscaleIPs) == 0 || p.TailscaleIPs[0] != ip {
			continue
		}
		if p.CurAddr != "" {
			return "direct " + p.CurAddr, nil
		}
		return "relay " + p.Relay, nil
	}
	return "", fmt.Errorf("no peer has the address %v", ip)
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
