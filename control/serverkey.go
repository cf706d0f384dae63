package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/key"
)

const (
	maxKeyBody      = 64 << 10 // bytes; control.md section 2
	maxKeyRedirects = 5
)

// fetchKey asks the server for its Noise key: the root of trust, so that the
// certificate of an https URL MUST verify (CTL-05, CTL-11).
func (d *dialer) fetchKey(ctx context.Context) (key.MachinePublic, error) {
	t := d.transport(d.tlsConfig(), netip.Addr{}, true)
	defer t.CloseIdleConnections()
	u := d.url.JoinPath(PathKey)
	u.RawQuery = url.Values{"v": {strconv.Itoa(CapabilityVersion)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return key.MachinePublic{}, err
	}
	maps.Copy(req.Header, d.headers)
	client := &http.Client{Transport: t, CheckRedirect: sameOrSafer}
	resp, err := client.Do(req)
	if err != nil {
		return key.MachinePublic{}, fmt.Errorf("fetch the control server's key: %w", keyFetchError(err))
	}
	defer resp.Body.Close()
	k, err := readKey(resp)
	if err != nil {
		return k, fmt.Errorf("fetch the control server's key from %s: %w", u.Redacted(), err)
	}
	return k, nil
}

// sameOrSafer follows redirects, but never from https to http.
func sameOrSafer(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxKeyRedirects:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect from https to %s", req.URL.Scheme)
	}
	return nil
}

// keyFetchError says what a failed request means. A certificate that does not
// verify is neither silence nor a wrong server: it is itself.
func keyFetchError(err error) error {
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case unverified, unknown:
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	case noTLS, strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fmt.Errorf("%w: it does not speak TLS: %w", ErrNotControl, err)
	case strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("%w: it does not speak HTTP: %w", ErrNotControl, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

func readKey(resp *http.Response) (k key.MachinePublic, err error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeyBody+1))
	switch {
	case resp.StatusCode >= 500:
		return k, fmt.Errorf("%w: %w", ErrUnreachable, &StatusError{Path: PathKey, Code: resp.StatusCode, Text: shorten(body)})
	case resp.StatusCode != http.StatusOK:
		return k, fmt.Errorf("%w: %w", ErrNotControl, &StatusError{Path: PathKey, Code: resp.StatusCode, Text: shorten(body)})
	case err != nil:
		return k, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case len(body) > maxKeyBody:
		return k, fmt.Errorf("%w: answer over %d bytes", ErrNotControl, maxKeyBody)
	}
	var answer KeyResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		return k, fmt.Errorf("%w: its answer %q is not that of one: %w", ErrNotControl, shorten(body), err)
	}
	if answer.PublicKey.IsZero() {
		return k, fmt.Errorf("%w: it has no Noise key and is too old for this client", ErrNotControl)
	}
	return answer.PublicKey, nil
}

// maxErrorBody is how much of an error body is shown to people, in bytes
// (control.md section 7.2).
const maxErrorBody = 200

// shorten makes the start of an error body fit for a log line.
func shorten(body []byte) string {
	return strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), maxErrorBody)]), ""))
}
