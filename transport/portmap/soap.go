package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// Limits of what a gateway may say over HTTP.
const (
	maxDocument = 256 << 10       // bytes of a description; real ones have up to 30 kB
	maxReply    = 64 << 10        // bytes of an answer to an action
	maxText     = 1 << 10         // bytes of one value
	httpTimeout = 1 * time.Second // of a description (PATH-103) or an action
)

// A fault is a gateway's refusal of an action (UPnP Device Architecture 1.1,
// section 3.2.5, and the tables of WANIPConnection:2).
type fault struct {
	code   int
	reason string
}

// Codes that have an answer of their own.
const (
	faultInvalidArgs   = 402
	faultConflict      = 718 // ConflictInMappingEntry: somebody else has the port
	faultSamePort      = 724 // SamePortValuesRequired: external and internal
	faultOnlyPermanent = 725 // OnlyPermanentLeasesSupported
)

func (f fault) Error() string { return fmt.Sprintf("UPnP: gateway refuses: %d %s", f.code, f.reason) }

// A soap speaks HTTP to one gateway.
type soap struct {
	client  *http.Client
	gateway netip.Addr
}

// newSOAP returns a client that opens a connection for each request and
// follows no redirect.
func newSOAP(n host.Network, gateway netip.Addr) *soap {
	dial := func(ctx context.Context, _, address string) (net.Conn, error) { return n.Dial(ctx, "tcp4", address) }
	return &soap{gateway: gateway, client: &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: maxReply},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// describe fetches the description of a device.
func (s *soap) describe(ctx context.Context, location *url.URL) ([]service, error) {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	at := atGateway(location, s.gateway)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("UPnP: description: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("UPnP: description: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("UPnP: description at %s: status %s", at, resp.Status)
	}
	return parseDescription(io.LimitReader(resp.Body, maxDocument), at)
}

// An argument is one value passed to an action. Values are numbers, addresses
// and texts of this package: nothing in them needs escaping.
type argument struct{ name, value string }

// call invokes an action of a service and returns the values of its answer by
// name. The error is a fault if the gateway refuses.
func (s *soap) call(ctx context.Context, sv service, action string, args ...argument) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	req, err := newAction(ctx, sv, action, args)
	if err != nil {
		return nil, fmt.Errorf("UPnP: %s: %w", action, err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("UPnP: %s: %w", action, err)
	}
	defer resp.Body.Close()
	values, err := parseReply(io.LimitReader(resp.Body, maxReply))
	_, refused := errors.AsType[fault](err)
	switch {
	case refused:
		return nil, fmt.Errorf("%s: %w", action, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("UPnP: %s: status %s", action, resp.Status)
	case err != nil:
		return nil, fmt.Errorf("UPnP: %s: %w", action, err)
	}
	return values, nil
}

// newAction returns the request for an action (UPnP Device Architecture 1.1,
// section 3.2.1).
func newAction(ctx context.Context, sv service, action string, args []argument) (*http.Request, error) {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?>` + "\r\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`)
	fmt.Fprintf(&b, `<u:%s xmlns:u="%s">`, action, sv.kind)
	for _, a := range args {
		fmt.Fprintf(&b, `<%s>%s</%s>`, a.name, a.value, a.name)
	}
	fmt.Fprintf(&b, `</u:%s></s:Body></s:Envelope>`+"\r\n", action)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, sv.control.String(), &b)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header.Set("SOAPAction", strconv.Quote(string(sv.kind)+"#"+action))
	return req, nil
}

// parseReply returns the text of every element of an answer by its local name.
// A fault in it is the error.
func parseReply(r io.Reader) (map[string]string, error) {
	values := make(map[string]string)
	err := eachText(r, func(path []string, text string) {
		if len(values) < 64 {
			values[path[len(path)-1]] = text
		}
	})
	if code, ok := values["errorCode"]; ok {
		n, _ := strconv.Atoi(code)
		return nil, fault{n, values["errorDescription"]}
	}
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return values, nil
}
