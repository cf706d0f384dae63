package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// shortLived is the profile of certificates for addresses, valid for about six
// days (letsencrypt.org/docs/profiles).
const shortLived acme.ProfileName = "shortlived"

// accountFile keeps the key of the account that orders certificates for
// addresses.
const accountFile = "acme-account.key"

// An orderer orders certificates for addresses and keeps them in files.
type orderer struct {
	client     *acme.Client
	contact    []string
	dir        string
	challenges *sync.Map // path of an open HTTP-01 challenge: its answer
}

func newOrderer(c ACMEConfig) (orderer, error) {
	o := orderer{client: c.client(), dir: c.Dir, challenges: new(sync.Map)}
	if c.Email != "" {
		o.contact = []string{"mailto:" + c.Email}
	}
	var err error
	o.client.Key, err = accountKey(filepath.Join(c.Dir, accountFile))
	return o, err
}

// accountKey reads the key of the ACME account, which it makes if there is no
// file.
func accountKey(path string) (crypto.Signer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newAccountKey(path)
	}
	if err != nil {
		return nil, err
	}
	if key := parseKey(b); key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("%s holds no ACME account key: remove it to have a new account made", path)
}

func newAccountKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	b, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, err
	}
	return key, writeFile(path, b)
}

// parseKey reads a private key in either of the usual PEM forms, nil if it is
// none.
func parseKey(b []byte) crypto.Signer {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil { // derper's form
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	signer, _ := key.(crypto.Signer)
	return signer
}

// files returns where an address's certificate is kept; file systems dislike
// colons (DERP-156).
func (o orderer) files(ip netip.Addr) pair {
	return pairIn(o.dir, strings.ReplaceAll(ip.String(), ":", "."))
}

// obtain returns the certificate from its files if it is still fresh, else a new
// one.
func (o orderer) obtain(ctx context.Context, ip netip.Addr) (*tls.Certificate, error) {
	now := time.Now()
	if cert, err := o.files(ip).load(ip.String(), now); err == nil && !renewable(cert, now) {
		return cert, nil
	}
	cert, err := o.issue(ctx, ip)
	if err != nil {
		return nil, err
	}
	return cert, o.files(ip).store(cert)
}

// issue orders a certificate (RFC 8555 section 7.4).
func (o orderer) issue(ctx context.Context, ip netip.Addr) (*tls.Certificate, error) {
	_, err := o.client.Register(ctx, &acme.Account{Contact: o.contact}, acme.AcceptTOS)
	if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("register account: %w", err)
	}
	order, err := o.client.AuthorizeOrder(ctx, acme.IPIDs(ip.String()), acme.WithOrderIssuanceProfile(shortLived))
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	for _, u := range order.AuthzURLs {
		if err := o.authorize(ctx, u); err != nil {
			return nil, fmt.Errorf("authorize: %w", err)
		}
	}
	if order, err = o.client.WaitOrder(ctx, order.URI); err != nil {
		return nil, fmt.Errorf("wait for order: %w", err)
	}
	return o.finalize(ctx, order, ip)
}

// authorize shows that the address is ours: the authority connects to it and
// asks for our answer to its challenge.
func (o orderer) authorize(ctx context.Context, authzURL string) error {
	authz, err := o.client.GetAuthorization(ctx, authzURL)
	if err != nil || authz.Status != acme.StatusPending {
		return err
	}
	for _, c := range authz.Challenges {
		if c.Type == "http-01" {
			return o.fulfil(ctx, authz, c)
		}
	}
	return errors.New("the authority offers no http-01 challenge")
}

func (o orderer) fulfil(ctx context.Context, authz *acme.Authorization, c *acme.Challenge) error {
	response, err := o.client.HTTP01ChallengeResponse(c.Token)
	if err != nil {
		return err
	}
	path := o.client.HTTP01ChallengePath(c.Token)
	o.challenges.Store(path, response)
	defer o.challenges.Delete(path)
	if _, err := o.client.Accept(ctx, c); err != nil {
		return err
	}
	_, err = o.client.WaitAuthorization(ctx, authz.URI)
	return err
}

// answer answers a challenge that is open; false if it is none of ours.
func (o orderer) answer(w http.ResponseWriter, path string) bool {
	response, open := o.challenges.Load(path)
	if open {
		w.Header().Set("Content-Type", "application/octet-stream") // RFC 8555 section 8.3
		io.WriteString(w, response.(string))
	}
	return open
}

// finalize fetches the certificate of an order that is ready.
func (o orderer) finalize(ctx context.Context, order *acme.Order, ip netip.Addr) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{IPAddresses: []net.IP{ip.AsSlice()}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := o.client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, fmt.Errorf("finalize order: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err == nil {
		err = usable(leaf, ip.String(), time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}
