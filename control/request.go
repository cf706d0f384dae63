package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
)

const (
	maxRequestBody  = 1 << 20  // bytes; hard limit of servers, control.md section 6
	maxRegisterBody = 1 << 20  // bytes of an answer, control.md section 15, rule 2
	maxLockBody     = 14 << 20 // bytes of an answer with updates of tailnet lock: 10 MiB in base64

	maxRetryAfter = time.Hour // control.md section 7.5
)

// send makes a request on the connection to the server; node keys are a hint
// for load balancers. An answer other than 200 is an error.
func (c *Client) send(ctx context.Context, method, path string, body any, hint ...key.NodePublic) (*http.Response, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(payload) > maxRequestBody {
		return nil, fmt.Errorf("%s: body of %d bytes, servers take %d", path, len(payload), maxRequestBody)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.requestURL(path), bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header["User-Agent"] = []string{""} // none
	for _, k := range hint {
		if !k.IsZero() {
			req.Header.Add(HeaderLoadBalance, k.String())
		}
	}
	resp, err := c.link.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, statusError(path, resp)
	}
	return resp, nil
}

// requestURL returns the URL of a path inside the Noise connection: always
// https, whatever is beneath (control.md section 6).
func (c *Client) requestURL(path string) string {
	return (&url.URL{Scheme: "https", Host: c.url.Host}).String() + path
}

// maxAnswer returns how many bytes an answer may have.
func maxAnswer(path string) int64 {
	if path == PathLockOffer {
		return maxLockBody
	}
	return maxRegisterBody
}

// call sends body and decodes the answer into answer.
func (c *Client) call(ctx context.Context, method, path string, body, answer any, hint ...key.NodePublic) error {
	resp, err := c.send(ctx, method, path, body, hint...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	limit := maxAnswer(path)
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read answer: %w: %w", path, ErrUnreachable, err)
	case int64(len(b)) > limit:
		return fmt.Errorf("%s: answer over %d bytes", path, limit)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s: answer: %w", path, err)
	}
	return nil
}

// statusError says what an answer other than 200 means (control.md sections 7.5
// and 8.9).
func statusError(path string, resp *http.Response) error {
	e := &StatusError{Path: path, Code: resp.StatusCode, Text: readText(resp.Body)}
	text := strings.ToLower(e.Text)
	switch {
	case e.Code == http.StatusTooManyRequests:
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case e.Code == http.StatusBadRequest && strings.Contains(text, "unsupported client version"):
		return fmt.Errorf("%w: %w", ErrUnsupportedVersion, e)
	case path == PathMap && (e.Code == http.StatusNotFound || e.Code == http.StatusBadRequest):
		return fmt.Errorf("%w: %w", ErrNodeUnknown, e)
	}
	return e
}

// retryAfter reads a Retry-After header, in seconds or as a date. One that is
// missing or unreasonable becomes 5 to 10 s (control.md section 7.5).
func retryAfter(header string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(header); err == nil {
		d = time.Duration(min(max(n, 0), 1<<20)) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	if d <= 0 || d > maxRetryAfter {
		d = 5*time.Second + rand.N(5*time.Second)
	}
	return d
}

// retryDelay returns how long an error asks to wait, 0 if it does not.
func retryDelay(err error) time.Duration {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.RetryAfter
	}
	return 0
}

// SetDNS asks for a DNS record of a name in the tailnet's public zone, as ACME
// needs it. A server without the feature answers with a StatusError of 404 or
// 501 (CTL-19).
func (c *Client) SetDNS(ctx context.Context, name, recordType, value string) error {
	k, err := c.currentKey()
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, PathSetDNS,
		SetDNSRequest{Version: CapabilityVersion, NodeKey: k, Name: name, Type: recordType, Value: value}, new(struct{}), k)
}

// IDToken asks for an OIDC token that names this node to an audience. Errors
// are as for SetDNS.
func (c *Client) IDToken(ctx context.Context, audience string) (string, error) {
	k, err := c.currentKey()
	if err != nil {
		return "", err
	}
	var answer IDTokenResponse
	err = c.call(ctx, http.MethodPost, PathIDToken, IDTokenRequest{CapVersion: CapabilityVersion, NodeKey: k, Audience: audience}, &answer, k)
	return answer.IDToken, err
}

// QueryFeature asks whether a feature such as "funnel" may be used. Errors are
// as for SetDNS.
func (c *Client) QueryFeature(ctx context.Context, feature string) (answer FeatureQueryResponse, err error) {
	k, err := c.currentKey()
	if err != nil {
		return answer, err
	}
	err = c.call(ctx, http.MethodPost, PathFeatureQuery, FeatureQueryRequest{Feature: feature, NodeKey: k}, &answer, k)
	return answer, err
}

// currentKey returns the key in force.
func (c *Client) currentKey() (key.NodePublic, error) {
	k := c.NodeKey.Get()
	if k.IsZero() {
		return key.NodePublic{}, ErrLoggedOut
	}
	return k.Public(), nil
}
