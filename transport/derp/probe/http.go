package probe

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxBody is how many bytes of an answer are read.
const maxBody = 64 << 10

// An answer is what a relay has said to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration // from the request to the header
}

// get asks the relay for a path, on a connection of its own.
func (m *measurement) get(ctx context.Context, path, headers string) (*answer, error) {
	s, err := m.dialer(m.target).DialTLS(ctx, m.alone())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	host := m.node.HostName
	if m.node.DERPPort != 0 {
		host += ":" + strconv.Itoa(m.node.DERPPort)
	}
	start := time.Now()
	if _, err := io.WriteString(s, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n"+headers+"\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return nil, fmt.Errorf("answer to GET %s: %w", path, err)
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header, took: time.Since(start)}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return a, err
}

// latencyProbe expects what browsers and netcheck need (DERP section 10.1).
func (m *measurement) latencyProbe(ctx context.Context) (string, error) {
	a, err := m.get(ctx, "/derp/probe", "")
	switch {
	case err != nil:
		return "", err
	case a.status != http.StatusOK:
		return "", fmt.Errorf("GET /derp/probe: status %d, want 200", a.status)
	case len(a.body) > 0:
		return "", fmt.Errorf("GET /derp/probe: body of %d bytes, want none", len(a.body))
	case a.header.Get("Access-Control-Allow-Origin") != "*":
		return "", errors.New("GET /derp/probe: no Access-Control-Allow-Origin: *, which browsers need")
	}
	return "answered after " + milliseconds(a.took), nil
}

// portal expects the answer to a challenge, without which clients take the
// relay for a captive portal (DERP-103).
func (m *measurement) portal(ctx context.Context) (string, error) {
	challenge := "probe-" + rand.Text()
	a, err := m.get(ctx, "/generate_204", "X-Tailscale-Challenge: "+challenge+"\r\n")
	switch {
	case err != nil:
		return "", err
	case a.status != http.StatusNoContent:
		return "", fmt.Errorf("GET /generate_204: status %d, want 204", a.status)
	}
	if got, want := a.header.Get("X-Tailscale-Response"), "response "+challenge; got != want {
		return "", fmt.Errorf("GET /generate_204: X-Tailscale-Response is %q, want %q", got, want)
	}
	return "answered after " + milliseconds(a.took), nil
}

// milliseconds writes a duration for people.
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds()*1000, 'f', 1, 64) + " ms"
}
