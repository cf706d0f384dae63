package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// maxAnswer bounds an answer that is read as a whole, in bytes. A network map of
// ten thousand nodes takes some megabytes.
const maxAnswer = 64 << 20

// ErrNoServer says that nobody serves the socket.
var ErrNoServer = errors.New("no node answers at the socket")

// A StatusError is an answer that is no success.
type StatusError struct {
	Status int // of HTTP
	Text   string
}

// Error returns what the node has said.
func (e *StatusError) Error() string { return e.Text }

// A Client asks the node that serves a socket. It keeps no connection.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client of the socket at path. It connects when it is asked.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{DialContext: c.connect, DisableKeepAlives: true}
	return c
}

// connect connects to the socket, wherever a request seems to go.
func (c *Client) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w %s (%w)", ErrNoServer, c.path, err)
	}
	return conn, err
}

// Stream makes a request and returns the answer's body, which the caller closes.
// body is nil, or sent as JSON.
func (c *Client) Stream(ctx context.Context, method, endpoint string, body any) (io.ReadCloser, error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+localHost+prefix+endpoint, sent)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unwrapURL(err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, statusError(resp)
	}
	return resp.Body, nil
}

// unwrapURL drops what a URL that means nothing to people adds to an error.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func statusError(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	var j struct{ Error string }
	if json.Unmarshal(text, &j) != nil || j.Error == "" {
		j.Error = strings.TrimSpace(string(text))
	}
	if j.Error == "" {
		j.Error = resp.Status
	}
	return &StatusError{resp.StatusCode, j.Error}
}

// Call makes a request and decodes the answer into answer, unless that is nil.
func (c *Client) Call(ctx context.Context, method, endpoint string, body, answer any) error {
	got, err := c.Stream(ctx, method, endpoint, body)
	if err != nil {
		return err
	}
	defer got.Close()
	if answer == nil {
		_, err := io.Copy(io.Discard, got)
		return err
	}
	if err := json.NewDecoder(io.LimitReader(got, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("answer of %s: %w", endpoint, err)
	}
	return nil
}

// Status returns the node's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	s := new(Status)
	return s, c.Call(ctx, http.MethodGet, "status", nil, s)
}

// WhoIs tells who has an address, with or without a port, or a key.
func (c *Client) WhoIs(ctx context.Context, addr string) (*WhoIs, error) {
	w := new(WhoIs)
	return w, c.Call(ctx, http.MethodGet, "whois?addr="+url.QueryEscape(addr), nil, w)
}

// Ping sends one ping.
func (c *Client) Ping(ctx context.Context, to netip.Addr, kind string) (*PingResult, error) {
	p := new(PingResult)
	q := url.Values{"ip": {to.String()}, "type": {kind}}
	return p, c.Call(ctx, http.MethodPost, "ping?"+q.Encode(), nil, p)
}

// DERPMap returns the relays of the tailnet.
func (c *Client) DERPMap(ctx context.Context) (*netmap.DERPMap, error) {
	m := new(netmap.DERPMap)
	return m, c.Call(ctx, http.MethodGet, "derpmap", nil, m)
}

// Prefs returns the preferences in force.
func (c *Client) Prefs(ctx context.Context) (*Prefs, error) {
	p := new(Prefs)
	return p, c.Call(ctx, http.MethodGet, "prefs", nil, p)
}

// EditPrefs gives fields of the preferences, by their names in Prefs, new values.
// It returns those in force then.
func (c *Client) EditPrefs(ctx context.Context, fields map[string]any) (*Prefs, error) {
	masked := make(map[string]any, 2*len(fields))
	for name, v := range fields {
		masked[name], masked[name+"Set"] = v, true
	}
	p := new(Prefs)
	return p, c.Call(ctx, http.MethodPatch, "prefs", masked, p)
}

// Login logs in, also a node that is logged in: with an auth key it returns when
// that has worked, without one Watch tells the URL for a person.
func (c *Client) Login(ctx context.Context, authKey string) error {
	if authKey == "" {
		return c.Call(ctx, http.MethodPost, "login-interactive", nil, nil)
	}
	if err := c.Call(ctx, http.MethodPost, "start", Options{AuthKey: authKey}, nil); err != nil {
		return err
	}
	return c.Call(ctx, http.MethodPost, "login-interactive", nil, nil)
}

// Logout forgets the login.
func (c *Client) Logout(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "logout", nil, nil)
}

// QueryDNS asks the node's DNS, and decodes what it tells of the answer into
// detail.
func (c *Client) QueryDNS(ctx context.Context, name, typ string, detail any) error {
	q := url.Values{"name": {name}, "type": {typ}}
	return c.Call(ctx, http.MethodGet, "dns-query?"+q.Encode(), nil, &DNSResponse{Detail: detail})
}

// Watch calls f with each message of the bus until ctx ends or f reports false.
// State and URL at the start come first.
func (c *Client) Watch(ctx context.Context, f func(*Notify) bool) error {
	body, err := c.Stream(ctx, http.MethodGet, "watch-ipn-bus?mask="+strconv.Itoa(watchInitialState), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		n := new(Notify)
		if err := d.Decode(n); err != nil {
			return err
		}
		if !f(n) {
			return nil
		}
	}
}

// Dial connects to an address on the tailnet by way of the node. Each Read and
// Write of a UDP connection is one datagram. The error is an *OutsideError for an
// address that is not on the tailnet.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect(ctx, "", "")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	joined, err := upgrade(conn.(*net.UnixConn), network, host, port)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return joined, nil
}

// upgrade asks for the way to an address.
func upgrade(c *net.UnixConn, network, host, port string) (net.Conn, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+localHost+prefix+"dial", nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Connection": {"upgrade"}, "Upgrade": {dialProtocol},
		"Dial-Host": {host}, "Dial-Port": {port}, "Dial-Network": {network}, framesHeader: {framesLength},
	}
	if err := req.Write(c); err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, req)
	switch {
	case err != nil:
		return nil, err
	case resp.Header.Get("Dial-Self") != "":
		addr, err := netip.ParseAddrPort(resp.Header.Get("Dial-Addr"))
		if err != nil {
			return nil, fmt.Errorf("answer of dial: %w", err)
		}
		return nil, &OutsideError{addr}
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, statusError(resp)
	case resp.Header.Get(framesHeader) != "":
		return &framedConn{c, &unframer{r}, &framer{w: c}}, nil
	}
	return &hijacked{c, r}, nil
}
