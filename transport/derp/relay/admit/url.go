package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// URL returns the check that asks an admission controller about each client by
// a POST to u (DERP-74); nil for an empty u. With failOpen a client is admitted
// if the controller cannot be asked at all, else it is refused, and either is
// logged; what the controller does answer counts in both cases (DERP-75). A nil
// client is one of this host's network; a nil log discards.
func URL(u string, failOpen bool, client *http.Client, log *slog.Logger) (Check, error) {
	if u == "" {
		return nil, nil
	}
	parsed, err := url.Parse(u)
	if err != nil {
		return nil, fmt.Errorf("admit: admission URL: %w", err)
	}
	if parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return nil, fmt.Errorf("admit: admission URL %s: want http:// or https:// and a host", parsed.Redacted())
	}
	if client == nil {
		client = &http.Client{Transport: &http.Transport{
			DialContext: inTime(host.OS{}.Dial), Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute,
		}}
	}
	c := &controller{url: u, name: parsed.Redacted(), failOpen: failOpen, client: client, warnings: newWarnings(log)}
	return c.check, nil
}

// A controller answers at a URL which clients are admitted.
type controller struct {
	url      string
	name     string // the URL without its password
	failOpen bool
	client   *http.Client
	warnings *warnings
}

// A question is what the controller is asked (DERP-74).
type question struct {
	NodePublic key.NodePublic
	Source     netip.Addr // the client's address
}

func (a *controller) check(ctx context.Context, c relay.Candidate) error {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, body, err := a.ask(bounded, c)
	switch {
	case ctx.Err() != nil: // the client has gone
		return fmt.Errorf("admit: client %s: %w", c.Key.Short(), ctx.Err())
	case status == 0 && a.failOpen:
		a.warnings.warn("admission URL cannot be asked; client admitted", c, explain(err))
		return nil
	case err != nil:
		a.warnings.warn("admission URL cannot be asked; client refused", c, explain(err))
		return fmt.Errorf("admit: client %s: ask %s: %w", c.Key.Short(), a.name, explain(err))
	case status != http.StatusOK:
		return fmt.Errorf("admit: client %s is refused: %s answers with status %d", c.Key.Short(), a.name, status)
	}
	if err := allows(body); err != nil {
		return fmt.Errorf("admit: client %s at %v is refused: %s: %w", c.Key.Short(), c.Addr.Addr(), a.name, err)
	}
	return nil
}

func (a *controller) ask(ctx context.Context, c relay.Candidate) (status int, body []byte, err error) {
	b, err := json.Marshal(question{NodePublic: c.Key, Source: c.Addr.Addr().Unmap()})
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return ask(a.client, req, maxAnswer)
}

// allows returns why an answer of status 200 is a refusal, nil if it is none.
func allows(body []byte) error {
	var answer struct{ Allow *bool } // nil: null, which must not keep an earlier true
	// The first value counts, whatever follows it.
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&answer); err != nil {
		return fmt.Errorf("answer is not understood: %w", err)
	}
	if answer.Allow == nil || !*answer.Allow {
		return errors.New("not allowed")
	}
	return nil
}
