package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// An authority is a small certificate authority that speaks ACME (RFC 8555) to
// those who use it as an http.RoundTripper. It checks signatures and nonces, and
// it validates what it certifies by visit.
type authority struct {
	visit func(ctx context.Context, challenge, name, path string) (string, error) // returns the key authorization seen at a name
	offer []string                                                                // challenge types
	life  time.Duration                                                           // of its certificates
	eab   []byte                                                                  // key that accounts must be bound with; nil: none

	key  *ecdsa.PrivateKey
	root *x509.Certificate

	mu       sync.Mutex
	nonces   map[string]bool
	accounts map[string]*account // by location
	orders   []*order
	attempts int  // orders asked for, refused ones too
	refuse   bool // every order
	hang     bool // every request
}

type account struct {
	key     *ecdsa.PublicKey
	contact []string
}

// An order is for one name, so that it has one authorization and one
// certificate.
type order struct {
	account *account
	kind    string // "dns" or "ip"
	name    string
	profile string
	status  string // of its authorization
	chain   []byte // PEM; nil: not issued
}

const directory = "http://authority.test/dir"

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{
		offer: []string{"http-01"}, life: 90 * 24 * time.Hour, key: key, root: root,
		nonces: map[string]bool{}, accounts: map[string]*account{},
	}
}

// set changes the authority under its lock.
func (a *authority) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// count returns how many orders there were, refused ones included.
func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attempts
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	hang := a.hang
	a.mu.Unlock()
	if hang {
		<-r.Context().Done()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Replay-Nonce", a.newNonce())
	if err := a.serve(w, r); err != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:unauthorized","detail":%q}`, err)
	}
	return w.Result(), nil
}

func (a *authority) newNonce() string {
	nonce := rand.Text()
	a.set(func() { a.nonces[nonce] = true })
	return nonce
}

func (a *authority) serve(w http.ResponseWriter, r *http.Request) error {
	const base = "http://authority.test"
	switch r.URL.Path {
	case "/dir":
		return reply(w, http.StatusOK, map[string]any{
			"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
			"meta": map[string]any{"profiles": map[string]string{"shortlived": "six days", "classic": "ninety days"}},
		})
	case "/nonce":
		return nil
	}
	req, err := a.open(r)
	if err != nil {
		return err
	}
	switch r.URL.Path {
	case "/account":
		return a.serveAccount(w, req)
	case "/order":
		return a.serveNewOrder(w, req)
	}
	kind, number, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	i, err := strconv.Atoi(number)
	a.mu.Lock()
	if err != nil || i >= len(a.orders) || a.orders[i].account != req.account {
		a.mu.Unlock()
		return fmt.Errorf("no %s of this account", r.URL.Path)
	}
	o := a.orders[i]
	a.mu.Unlock()
	switch kind {
	case "order":
		return a.serveOrder(w, i, o, http.StatusOK)
	case "authz":
		return a.serveAuthz(w, i, o)
	case "http-01", "tls-alpn-01":
		return a.serveChallenge(w, r, i, o, kind)
	case "finalize":
		return a.serveFinalize(w, i, o, req)
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, err = w.Write(o.chain)
	return err
}

func reply(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// A signed is the content of a request whose signature is good.
type signed struct {
	account *account // nil for a new account
	key     *ecdsa.PublicKey
	payload []byte
}

// A jws is what ACME signs everything with (RFC 7515).
type jws struct{ Protected, Payload, Signature string }

func decode64(s string) []byte {
	b, _ := base64.RawURLEncoding.DecodeString(s)
	return b
}

// open checks a request's nonce, URL and signature.
func (a *authority) open(r *http.Request) (signed, error) {
	var body jws
	var head struct {
		Nonce, URL, KID string
		JWK             struct{ X, Y string }
	}
	if err := errors.Join(json.NewDecoder(r.Body).Decode(&body), json.Unmarshal(decode64(body.Protected), &head)); err != nil {
		return signed{}, err
	}
	s := signed{payload: decode64(body.Payload)}
	a.mu.Lock()
	fresh := a.nonces[head.Nonce]
	delete(a.nonces, head.Nonce)
	s.account = a.accounts[head.KID]
	a.mu.Unlock()
	switch {
	case !fresh || head.URL != r.URL.String():
		return signed{}, errors.New("nonce or URL is wrong")
	case s.account != nil:
		s.key = s.account.key
	case head.KID != "":
		return signed{}, errors.New("account is unknown")
	default:
		var err error
		if s.key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, decode64(head.JWK.X), decode64(head.JWK.Y))); err != nil {
			return signed{}, err
		}
	}
	sum, sig := sha256.Sum256([]byte(body.Protected+"."+body.Payload)), decode64(body.Signature)
	if len(sig) != 64 || !ecdsa.Verify(s.key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return signed{}, errors.New("signature is wrong")
	}
	return s, nil
}

func (a *authority) serveAccount(w http.ResponseWriter, req signed) error {
	var in struct {
		Contact                []string
		TermsOfServiceAgreed   bool
		ExternalAccountBinding *jws
	}
	if err := json.Unmarshal(req.payload, &in); err != nil {
		return err
	}
	if err := a.checkBinding(in.ExternalAccountBinding); err != nil {
		return err
	}
	thumb, err := acme.JWKThumbprint(req.key)
	if err != nil {
		return err
	}
	location, status := "http://authority.test/account/"+thumb, http.StatusOK
	a.set(func() {
		if a.accounts[location] == nil {
			a.accounts[location], status = &account{req.key, in.Contact}, http.StatusCreated
		}
	})
	w.Header().Set("Location", location)
	return reply(w, status, map[string]any{"status": "valid"})
}

// checkBinding checks an external account binding (RFC 8555 section 7.3.4).
func (a *authority) checkBinding(b *jws) error {
	if a.eab == nil {
		return nil
	}
	if b == nil {
		return errors.New("account is not bound")
	}
	h := hmac.New(sha256.New, a.eab)
	io.WriteString(h, b.Protected+"."+b.Payload)
	if !hmac.Equal(h.Sum(nil), decode64(b.Signature)) || !bytes.Contains(decode64(b.Protected), []byte(`"kid":"kid-1"`)) {
		return errors.New("binding is wrong")
	}
	return nil
}

func (a *authority) serveNewOrder(w http.ResponseWriter, req signed) error {
	var in struct {
		Identifiers []struct{ Type, Value string }
		Profile     string
	}
	if err := json.Unmarshal(req.payload, &in); err != nil || len(in.Identifiers) != 1 {
		return fmt.Errorf("order of %d identifiers: %w", len(in.Identifiers), err)
	}
	o := &order{account: req.account, kind: in.Identifiers[0].Type, name: in.Identifiers[0].Value, profile: in.Profile, status: "pending"}
	a.mu.Lock()
	a.attempts++
	if a.refuse {
		a.mu.Unlock()
		return errors.New("order refused")
	}
	a.orders = append(a.orders, o)
	i := len(a.orders) - 1
	a.mu.Unlock()
	return a.serveOrder(w, i, o, http.StatusCreated)
}

func (a *authority) serveOrder(w http.ResponseWriter, i int, o *order, code int) error {
	url := func(kind string) string { return fmt.Sprintf("http://authority.test/%s/%d", kind, i) }
	a.mu.Lock()
	m := map[string]any{
		"status": map[string]string{"pending": "pending", "valid": "ready", "invalid": "invalid"}[o.status], "finalize": url("finalize"),
		"identifiers": []any{map[string]string{"type": o.kind, "value": o.name}}, "authorizations": []string{url("authz")},
	}
	if o.chain != nil {
		m["status"], m["certificate"] = "valid", url("cert")
	}
	a.mu.Unlock()
	w.Header().Set("Location", url("order"))
	return reply(w, code, m)
}

func (a *authority) serveAuthz(w http.ResponseWriter, i int, o *order) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var challenges []any
	for _, c := range a.offer {
		challenges = append(challenges, challenge(c, i, o.status))
	}
	return reply(w, http.StatusOK, map[string]any{
		"status": o.status, "identifier": map[string]string{"type": o.kind, "value": o.name}, "challenges": challenges,
	})
}

func challenge(kind string, i int, status string) map[string]string {
	return map[string]string{"type": kind, "url": fmt.Sprintf("http://authority.test/%s/%d", kind, i), "token": fmt.Sprintf("token-%d", i), "status": status}
}

// serveChallenge validates at once that the account's owner has the name.
func (a *authority) serveChallenge(w http.ResponseWriter, r *http.Request, i int, o *order, kind string) error {
	thumb, err := acme.JWKThumbprint(o.account.key)
	if err != nil {
		return err
	}
	token := fmt.Sprintf("token-%d", i)
	got, err := a.visit(r.Context(), kind, o.name, "/.well-known/acme-challenge/"+token)
	status := "valid"
	if want := token + "." + thumb; err != nil || got != want && got != digest(want) {
		status = "invalid"
	}
	a.set(func() { o.status = status })
	return reply(w, http.StatusOK, challenge(kind, i, status))
}

// digest is what TLS-ALPN-01 shows of a key authorization (RFC 8737 section 3).
func digest(authorization string) string {
	sum := sha256.Sum256([]byte(authorization))
	return string(sum[:])
}

func (a *authority) serveFinalize(w http.ResponseWriter, i int, o *order, req signed) error {
	var in struct{ CSR string }
	if err := json.Unmarshal(req.payload, &in); err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(decode64(in.CSR))
	if err != nil {
		return err
	}
	names := csr.DNSNames
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	if o.status != "valid" || len(names) != 1 || names[0] != o.name {
		return fmt.Errorf("order for %s in status %s, request for %v", o.name, o.status, names)
	}
	der, err := a.sign(csr.DNSNames, csr.IPAddresses, csr.PublicKey)
	if err != nil {
		return err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})...)
	a.set(func() { o.chain = chain })
	return a.serveOrder(w, i, o, http.StatusOK)
}

func (a *authority) sign(names []string, ips []net.IP, key crypto.PublicKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(a.life - time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return x509.CreateCertificate(rand.Reader, template, a.root, key, a.key)
}
