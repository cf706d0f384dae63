package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

const loginWait = 30 * time.Second

// A client is one client of a relay, made to cost this process little: it
// writes many frames at once and reads ahead below TLS.
type client struct {
	*derp.FrameReader
	conn *tls.Conn
	key  key.NodePublic
}

// A readAhead is a connection whose reads are buffered.
type readAhead struct {
	net.Conn
	in *bufio.Reader
}

func (c readAhead) Read(b []byte) (int, error) { return c.in.Read(b) }

// connect logs a client in over TLS 1.3. ahead is how many bytes it reads at
// once.
func (f *field) connect(ctx context.Context, addr string, ahead int) (*client, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: tls.Client(readAhead{raw, bufio.NewReaderSize(raw, ahead)}, &tls.Config{
		ServerName: relayHost, RootCAs: f.identity.Pool, MinVersion: tls.VersionTLS13,
		DynamicRecordSizingDisabled: true, // what is written at once is one record
	})}
	c.conn.SetDeadline(time.Now().Add(loginWait))
	if err := c.login(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("log in at %s: %w", addr, err)
	}
	c.conn.SetDeadline(time.Time{})
	return c, nil
}

// login upgrades the connection and exchanges keys (DERP-23, DERP-98).
func (c *client) login(ctx context.Context) error {
	request := "GET /derp HTTP/1.1\r\nHost: " + relayHost + "\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n" +
		derp.FastStartHeader + ": 1\r\n\r\n"
	if _, err := io.WriteString(c.conn, request); err != nil {
		return err
	}
	c.FrameReader = derp.NewFrameReader(c.conn, nil)
	b, err := c.expect(derp.FrameServerKey)
	if err != nil {
		return err
	}
	server, err := derp.ParseServerKey(b)
	if err != nil {
		return err
	}
	private := key.NewNode()
	c.key = private.Public()
	info, err := derp.AppendClientInfo(nil, private, server, derp.ClientInfo{Version: derp.ProtocolVersion, CanAckPings: true})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(info); err != nil {
		return err
	}
	_, err = c.expect(derp.FrameServerInfo)
	return err
}

// expect reads a frame, which must be of a type.
func (c *client) expect(want derp.FrameType) ([]byte, error) {
	t, n, err := c.Header()
	if err != nil {
		return nil, err
	}
	if t != want {
		return nil, fmt.Errorf("frame %v, want %v", t, want)
	}
	return c.Payload(n)
}

// close ends the connection without a farewell, which could block.
func (c *client) close() { c.conn.NetConn().Close() }
