package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/proxy/socks"
)

// headerConnectError tells a client why its destination cannot be reached
// (SVC-165).
const headerConnectError = "Tailscale-Connect-Error"

// viaName is this proxy in Via: a pseudonym, as the name of the machine is nobody's
// business (RFC 9110 section 7.6.3).
const viaName = "tsnode"

// established begins a tunnel (RFC 9110 section 9.3.6).
const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// An httpProxy serves the requests of clients that use it as a proxy: CONNECT, and
// others with an absolute URI.
type httpProxy struct {
	policy    *Proxies
	forward   *httputil.ReverseProxy
	transport *http.Transport        // keeps connections for the next request
	once      *http.Transport        // keeps none: for requests with an exit node of their own
	way       atomic.Pointer[string] // that kept connections go
	log       *slog.Logger
	*tally
}

// userKey is the key of the user name of a request in its context.
type userKey struct{}

func userOf(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

func newHTTPProxy(policy *Proxies, t *tally, log *slog.Logger) *httpProxy {
	p := &httpProxy{policy: policy, log: log, tally: t}
	p.transport = newTransport(func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := p.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &meteredConn{c, &t.traffic.Out, &t.traffic.In}, nil
	})
	p.once = p.transport.Clone()
	p.once.DisableKeepAlives = true
	p.forward = newReverseProxy(p.rewrite, p, log)
	p.forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) { p.unreachable(w, err) }
	return p
}

// RoundTrip makes a request of a client. No connection is used for it that goes
// another way than one that would be made for it.
func (p *httpProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, exit := splitUser(userOf(r.Context())); exit != "" {
		return p.once.RoundTrip(r)
	}
	if p.policy.Way != nil {
		now := p.policy.Way()
		if before := p.way.Swap(&now); before != nil && *before != now {
			p.transport.CloseIdleConnections()
		}
	}
	return p.transport.RoundTrip(r)
}

// ServeHTTP serves one request.
func (p *httpProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, authorized, guessed := p.authorize(r)
	if guessed {
		p.fail(p.log, errPassword, "client", r.RemoteAddr)
		actor.Sleep(r.Context(), socks.RefusalPause)
	}
	r = r.WithContext(context.WithValue(r.Context(), userKey{}, user))
	switch {
	case !authorized:
		w.Header().Set("Proxy-Authenticate", `Basic realm="tsnode"`)
		http.Error(w, "this proxy wants a user name and a password", http.StatusProxyAuthRequired)
	case r.Method == http.MethodConnect:
		p.connect(w, r)
	case r.URL.Scheme != "http" && r.URL.Host != "":
		http.Error(w, fmt.Sprintf("%s %s://…: this proxy fetches http URLs only: have the client tunnel with CONNECT", r.Method, r.URL.Scheme), http.StatusBadRequest)
	case r.URL.Host == "":
		http.Error(w, "this is a proxy: set it as such, it serves no pages of its own", http.StatusBadRequest)
	default:
		p.forward.ServeHTTP(w, r)
	}
}

// errPassword says why a client is refused.
var errPassword = errors.New("wrong user name or password for the proxy")

// authorize returns the user name of a request, and whether it has the credentials
// that are wanted, or else wrong ones. A name that nobody need have may choose an exit
// node all the same.
func (p *httpProxy) authorize(r *http.Request) (user string, authorized, guessed bool) {
	open := len(p.policy.Passwords) == 0
	scheme, text, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok || !strings.EqualFold(scheme, "Basic") {
		return "", open, false
	}
	authorized = open || p.policy.authenticate(user, password)
	return user, authorized, !authorized
}

// dial connects to where a client wants to go.
func (p *httpProxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
	defer cancel()
	return p.policy.dial(ctx, userOf(ctx), network, address)
}

// connect makes a tunnel.
func (p *httpProxy) connect(w http.ResponseWriter, r *http.Request) {
	if err := checkAddress(r.Host); err != nil {
		http.Error(w, fmt.Sprintf("CONNECT %s: %v", r.Host, err), http.StatusBadRequest)
		return
	}
	made, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		p.unreachable(w, err)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		made.Close()
		http.Error(w, "CONNECT wants HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	defer c.Close()
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered()) // sent before our answer
	if err == nil && len(early) > 0 {
		p.traffic.In.Add(uint64(len(early)))
		_, err = made.Write(early)
	}
	if err == nil {
		_, err = c.Write([]byte(established))
	}
	if err != nil {
		made.Close()
		return
	}
	keepAlive(made)
	// The context of a request ends with its handler; that of the proxy closes c.
	if err := carry.Pipe(r.Context(), carry.Unwrap(c), made, &p.traffic); err != nil {
		p.log.Debug("tunnel ended", "to", r.Host, "err", err)
	}
}

// forwarded are headers that a proxy which its client has chosen passes on.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// rewrite makes the request for the server from the one for the proxy; the headers
// for the connection are gone already (RFC 9110 section 7.6.1).
func (p *httpProxy) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery // not ours to correct
	for _, name := range forwarded {
		if values := r.In.Header.Values(name); len(values) > 0 {
			r.Out.Header[name] = values
		}
	}
	// "A proxy MUST send an appropriate Via header field" (RFC 9110 section 7.6.3).
	r.Out.Header.Add("Via", fmt.Sprintf("%d.%d %s", r.In.ProtoMajor, r.In.ProtoMinor, viaName))
}

// unreachable tells a client that its destination cannot be reached (SVC-165).
func (p *httpProxy) unreachable(w http.ResponseWriter, err error) {
	abortIfEnded(err)
	status := http.StatusBadGateway
	var timeout net.Error
	switch {
	case errors.Is(err, socks.ErrNotAllowed):
		status = http.StatusForbidden
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		status = http.StatusGatewayTimeout
	}
	p.fail(p.log, err)
	w.Header().Set(headerConnectError, strings.Join(strings.Fields(err.Error()), " "))
	http.Error(w, err.Error(), status)
}
