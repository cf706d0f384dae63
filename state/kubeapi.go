package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/seed94491740/tsnode/host"
)

// Where a pod finds the API server and its own service account (Kubernetes
// documentation, "Accessing the Kubernetes API from a Pod").
const (
	kubeAddress = "kubernetes.default.svc:443"
	kubeAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// maxKubeAnswer bounds an answer in bytes: a full Secret in base64, and what is
// noted beside it.
const maxKubeAnswer = 4 << 20

// A KubeConfig says which Secret a store is, and how it is reached. The zero
// values of all but Secret are what a pod finds.
type KubeConfig struct {
	Secret  string       // its name, in the namespace of the pod
	Address string       // host:port of the API server; empty: kubernetes.default.svc:443
	Account string       // folder with token, ca.crt and namespace; empty: where pods have it
	Network host.Network // nil: the machine's
}

// A kubeAPI asks the API server for one Secret.
//
// It reads token and CA again for each request, for both are replaced while the
// pod runs, and keeps no connection: a node writes a few times a day.
type kubeAPI struct {
	KubeConfig
	namespace string
	client    *http.Client
}

func newKubeAPI(c KubeConfig) (*kubeAPI, error) {
	a := &kubeAPI{KubeConfig: c}
	a.Address, a.Account = cmp.Or(c.Address, kubeAddress), cmp.Or(c.Account, kubeAccount)
	if a.Network == nil {
		a.Network = host.OS{}
	}
	if err := CheckSecretName(c.Secret); err != nil {
		return nil, err
	}
	if err := a.readAccount(); err != nil {
		return nil, fmt.Errorf("no service account of Kubernetes: %w: run in a pod that has one (automountServiceAccountToken), or keep the keys elsewhere", err)
	}
	a.client = &http.Client{
		Transport: &http.Transport{DialTLSContext: a.dial, DisableKeepAlives: true},
		// The token is for the API server alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a, nil
}

// CheckSecretName returns why no Secret can have that name.
func CheckSecretName(name string) error {
	if !isKubeName(name) {
		return fmt.Errorf("%q cannot be the name of a Secret: write kube:NAME in lower-case letters, digits, hyphens and dots", name)
	}
	return nil
}

// maxKubeName is the longest name of an object in bytes (Kubernetes documentation,
// "Object Names and IDs").
const maxKubeName = 253

// isKubeName reports whether a Secret or a namespace may have that name. It is
// one step of a path, then.
func isKubeName(name string) bool {
	if name == "" || len(name) > maxKubeName || strings.Trim(name, "-.") != name {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// readAccount reads the namespace, and finds out whether the rest is there.
func (a *kubeAPI) readAccount() (err error) {
	if a.namespace, err = a.file("namespace"); err != nil {
		return err
	}
	if !isKubeName(a.namespace) {
		return fmt.Errorf("%s holds no name of a namespace", filepath.Join(a.Account, "namespace"))
	}
	if _, err := a.roots(); err != nil {
		return err
	}
	_, err = a.file("token")
	return err
}

// file reads one file of the service account.
func (a *kubeAPI) file(name string) (string, error) {
	path := filepath.Join(a.Account, name)
	b, err := readLimited(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}

// roots returns the authorities that vouch for the API server.
func (a *kubeAPI) roots() (*x509.CertPool, error) {
	text, err := a.file("ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(a.Account, "ca.crt"))
	}
	return pool, nil
}

func (a *kubeAPI) dial(ctx context.Context, network, address string) (net.Conn, error) {
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c, err := a.Network.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return secure, nil
}

// String names the Secret.
func (a *kubeAPI) String() string {
	return fmt.Sprintf("Secret %s in namespace %s", a.Secret, a.namespace)
}

func (a *kubeAPI) get(ctx context.Context) (*kubeSecret, error) {
	return a.do(ctx, kubeRequest{verb: "get", method: http.MethodGet, name: a.Secret})
}

func (a *kubeAPI) create(ctx context.Context, values map[string][]byte) (*kubeSecret, error) {
	s := newKubeSecret{APIVersion: "v1", Kind: "Secret", Data: values}
	s.Metadata.Name = a.Secret
	return a.do(ctx, kubeRequest{verb: "create", method: http.MethodPost, kind: "application/json", body: s})
}

func (a *kubeAPI) patch(ctx context.Context, p kubePatch) (*kubeSecret, error) {
	return a.do(ctx, kubeRequest{verb: "patch", method: http.MethodPatch, name: a.Secret, kind: "application/merge-patch+json", body: p})
}

func (a *kubeAPI) update(ctx context.Context, whole object) (*kubeSecret, error) {
	return a.do(ctx, kubeRequest{verb: "update", method: http.MethodPut, name: a.Secret, kind: "application/json", body: whole})
}

// A kubeRequest is a request for a Secret, or for all of the namespace when it
// has no name.
type kubeRequest struct {
	verb, method string // as RBAC and HTTP call it
	name         string
	kind         string // Content-Type
	body         any    // sent as JSON; nil = none
}

// do sends a request. A token that is not accepted is read again, once: it may
// have been replaced meanwhile.
func (a *kubeAPI) do(ctx context.Context, r kubeRequest) (*kubeSecret, error) {
	token, err := a.file("token")
	if err != nil {
		return nil, err
	}
	s, err := a.send(ctx, r, token)
	if !isStatus(err, http.StatusUnauthorized) {
		return s, err
	}
	next, readErr := a.file("token")
	if readErr != nil || next == token {
		return nil, err
	}
	return a.send(ctx, r, next)
}

// errNoAnswer says that the API server could not be asked, or did not answer in
// full.
var errNoAnswer = errors.New("no answer from the API server")

func (a *kubeAPI) send(ctx context.Context, r kubeRequest, token string) (*kubeSecret, error) {
	req, err := a.request(ctx, r, token)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxKubeAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	case len(b) > maxKubeAnswer:
		return nil, notASecret(fmt.Errorf("it is larger than %d bytes", maxKubeAnswer))
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, parseKubeError(r.verb, resp.StatusCode, b)
	}
	return parseKubeSecret(b)
}

func (a *kubeAPI) request(ctx context.Context, r kubeRequest, token string) (*http.Request, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, err
		}
	}
	url := fmt.Sprintf("https://%s/api/v1/namespaces/%s/secrets", a.Address, a.namespace)
	if r.name != "" {
		url += "/" + r.name
	}
	req, err := http.NewRequestWithContext(ctx, r.method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tsnode") // names us in the Secret's managedFields
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	return req, nil
}
