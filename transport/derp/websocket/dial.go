package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	ws "github.com/coder/websocket"
)

// A DialFunc opens the connection below, as host.Network's Dial does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Dial asks the relay at a ws, wss, http or https URL for DERP over WebSocket
// and returns the byte stream (DERP-102). With wss and https it speaks TLS as
// config says; nil, or a config without a server name, verifies the name in the
// URL. ctx bounds the handshake only.
func Dial(ctx context.Context, url string, config *tls.Config, dial DialFunc) (net.Conn, error) {
	d := &dialer{config: config, dial: dial}
	c, _, err := ws.Dial(ctx, url, &ws.DialOptions{
		HTTPClient: &http.Client{
			Transport:     &http.Transport{DialContext: d.plain, DialTLSContext: d.tls, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols:    []string{Subprotocol},
		CompressionMode: ws.CompressionDisabled,
	})
	if err != nil {
		return nil, fmt.Errorf("websocket: %s: %w", url, err)
	}
	if c.Subprotocol() != Subprotocol {
		hangUp(d.conn)
		c.CloseNow()
		return nil, errors.New("websocket: " + url + " does not speak the subprotocol " + Subprotocol)
	}
	return newConn(d.conn, c), nil
}

// A dialer notes the connection that the handshake runs on: HTTP hands it out
// without its deadlines.
type dialer struct {
	config *tls.Config
	dial   DialFunc
	conn   net.Conn
}

func (d *dialer) plain(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.dial(ctx, network, address)
	d.conn = c
	return c, err
}

func (d *dialer) tls(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, d.clientConfig(address))
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	d.conn = c
	return c, nil
}

// clientConfig completes the configuration for an address.
func (d *dialer) clientConfig(address string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.config != nil {
		config = d.config.Clone()
	}
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	return config
}
