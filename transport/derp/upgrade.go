package derp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Bounds of an HTTP response in bytes.
const (
	maxResponse = 64 << 10 // head and what follows it at once
	maxBody     = 512      // of an error that is shown
)

// A request is what a relay is asked for.
type request struct {
	path  string
	ideal string // name of the node we would rather have reached; empty = this one
	more  http.Header
}

// upgrade asks the relay to speak DERP. When TLS has told the relay's key, the
// request is left to travel with the login and no answer is waited for
// (DERP-109).
func (s *Stream) upgrade(ctx context.Context, host string, r request) error {
	var more strings.Builder
	if err := r.more.Write(&more); err != nil {
		return err
	}
	req := "GET " + r.path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n" + more.String()
	if r.ideal != "" {
		req += IdealNodeHeader + ": " + r.ideal + "\r\n"
	}
	if !s.ServerKey.IsZero() {
		s.request = []byte(req + FastStartHeader + ": 1\r\n\r\n")
		return nil
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if _, err := io.WriteString(s, req+"\r\n"); err != nil {
		return err
	}
	var err error
	s.pending, err = readUpgrade(s)
	return err
}

// readUpgrade reads a relay's answer to the request, and returns the bytes that
// came right behind it.
func readUpgrade(r io.Reader) (pending []byte, err error) {
	br := bufio.NewReader(io.LimitReader(r, maxResponse))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, fmt.Errorf("HTTP answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return nil, fmt.Errorf("HTTP status %q instead of 101: %q", resp.Status, body)
	}
	return br.Peek(br.Buffered())
}
