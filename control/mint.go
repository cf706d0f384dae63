package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Requests of the API that makes auth keys (control.md section 7.4).
const (
	pathToken = "/api/v2/oauth/token"    // RFC 6749 section 4.4.2
	pathKeys  = "/api/v2/tailnet/-/keys" // "-" is the tailnet of the client

	mintTimeout = 30 * time.Second
	maxAPIBody  = 64 << 10 // bytes of an answer
)

// A tokenResponse is RFC 6749 section 5.1.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
}

// A keyRequest asks for an auth key.
type keyRequest struct {
	Capabilities struct {
		Devices struct {
			Create keyProperties `json:"create"`
		} `json:"devices"`
	} `json:"capabilities"`
}

type keyProperties struct {
	Reusable      bool     `json:"reusable"`
	Ephemeral     bool     `json:"ephemeral"`
	Preauthorized bool     `json:"preauthorized"`
	Tags          []string `json:"tags"`
}

type keyResponse struct {
	Key string `json:"key"`
}

// A mint makes auth keys of an OAuth client secret.
type mint struct {
	*clientSecret
	client http.Client
}

// mint makes an auth key that is good for one node with the tags that this one
// asks for.
func (c *Client) mint(ctx context.Context, s *clientSecret) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mintTimeout)
	defer cancel()
	t := c.link.dialer.transport(c.link.dialer.tlsConfig(), netip.Addr{}, false)
	defer t.CloseIdleConnections()
	m := mint{s, http.Client{Transport: t, CheckRedirect: noRedirect}}
	token, err := m.token(ctx)
	if err != nil {
		return "", fmt.Errorf("make an auth key: %w", err)
	}
	k, err := m.key(ctx, token, c.cfg.Tags)
	if err != nil {
		return "", fmt.Errorf("make an auth key: %w", err)
	}
	return k, nil
}

// noRedirect keeps the secret where it was meant to go.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// token gets the access token of the client.
func (m *mint) token(ctx context.Context) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {m.id()}, "client_secret": {m.text}}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	var answer tokenResponse
	err := m.post(ctx, pathToken, header, []byte(form.Encode()), &answer)
	switch {
	case refusedWith(err, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden):
		return "", fmt.Errorf("%w: %w: the OAuth client is unknown: make a new one with the scope auth_keys", ErrBadAuthKey, err)
	case err != nil:
		return "", err
	case answer.AccessToken == "":
		return "", fmt.Errorf("%s: answer without an access token", pathToken)
	}
	return answer.AccessToken, nil
}

// key gets an auth key for a token.
func (m *mint) key(ctx context.Context, token string, tags []string) (string, error) {
	var ask keyRequest
	ask.Capabilities.Devices.Create = keyProperties{Ephemeral: m.ephemeral, Preauthorized: m.preauthorized, Tags: tags}
	body, err := json.Marshal(ask)
	if err != nil {
		return "", err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
	var answer keyResponse
	err = m.post(ctx, pathKeys, header, body, &answer)
	switch {
	case refusedWith(err, http.StatusUnauthorized, http.StatusForbidden):
		return "", fmt.Errorf("%w: %w: give the OAuth client the scope auth_keys", ErrBadAuthKey, err)
	case refusedWith(err, http.StatusBadRequest):
		return "", fmt.Errorf("%w: %w: give the OAuth client the tags %s, or ask for others", ErrRefused, err, strings.Join(tags, ", "))
	case err != nil:
		return "", err
	case answer.Key == "":
		return "", fmt.Errorf("%s: answer without a key", pathKeys)
	}
	return answer.Key, nil
}

// post makes one request and decodes its answer.
func (m *mint) post(ctx context.Context, path string, header http.Header, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.api.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(path, resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAPIBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read answer: %w", path, err)
	case len(b) > maxAPIBody:
		return fmt.Errorf("%s: answer over %d bytes", path, maxAPIBody)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s: answer: %w", path, err)
	}
	return nil
}

// refusedWith reports whether err is an answer with one of the codes.
func refusedWith(err error, codes ...int) bool {
	status, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if status.Code == c {
			return true
		}
	}
	return false
}
