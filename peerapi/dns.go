package peerapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPath   = "/dns-query"              // SVC-78
	mediaType = "application/dns-message" // RFC 8484 section 6

	dnsTimeout = 5 * time.Second // of one question; section 8

	// maxMessage bounds a question in bytes: no transport of DNS carries more
	// (RFC 1035 section 4.2.2). The reference takes 256 KiB.
	maxMessage = 65535
)

// A dnsRequest is a question, and how its answer is wanted.
type dnsRequest struct {
	message []byte
	asJSON  bool
}

// An httpError says why a request is not answered.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func badRequest(text string) error { return &httpError{http.StatusBadRequest, text} }

// answerDNS is DNS over HTTP (RFC 8484).
func (r *request) answerDNS(w http.ResponseWriter) {
	if !r.allows(w, http.MethodGet, http.MethodPost) {
		return
	}
	if !r.isOwner() && !r.server.config.MayQueryDNS(r.from) {
		r.server.count.forbidden.Add(1)
		http.Error(w, "DNS is for nodes of the same user, and for users of an exit node", http.StatusForbidden)
		return
	}
	q, err := readDNS(w, r.Request)
	if err != nil {
		fail(w, err)
		return
	}
	r.server.count.questions.Add(1)
	ctx, cancel := context.WithTimeout(r.Context(), dnsTimeout)
	defer cancel()
	answer, err := r.server.config.QueryDNS(ctx, q.message)
	switch {
	case ctx.Err() != nil:
		http.Error(w, "no answer in time", http.StatusGatewayTimeout)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case q.asJSON:
		writeJSON(w, answer)
	default:
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer) // a peer that has gone needs none
	}
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if e, ok := errors.AsType[*httpError](err); ok {
		status = e.status
	}
	http.Error(w, err.Error(), status)
}

// readDNS reads the question of a request.
func readDNS(w http.ResponseWriter, r *http.Request) (q dnsRequest, err error) {
	if r.Method == http.MethodGet {
		return parseDNS(r.URL.RawQuery)
	}
	if r.Header.Get("Content-Type") != mediaType {
		return q, &httpError{http.StatusUnsupportedMediaType, "want Content-Type " + mediaType}
	}
	q.message, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return q, &httpError{http.StatusRequestEntityTooLarge, "a DNS message has at most 65535 bytes"}
	}
	return q, err
}

// parseDNS parses the query part of a GET's URL: dns=MESSAGE in base64url without
// padding (RFC 8484 section 4.1), or q=NAME&t=TYPE for people, who get JSON.
func parseDNS(rawQuery string) (q dnsRequest, err error) {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return q, badRequest("the query of the URL is malformed")
	}
	text, name := values.Get("dns"), values.Get("q")
	switch {
	case text != "" && base64.RawURLEncoding.DecodedLen(len(text)) > maxMessage:
		return q, badRequest("a DNS message has at most 65535 bytes")
	case text != "":
		if q.message, err = base64.RawURLEncoding.DecodeString(text); err != nil {
			return q, badRequest("dns: want a DNS message in base64url without padding")
		}
		return q, nil
	case name != "":
		q.asJSON = true
		q.message, err = newQuestion(name, values.Get("t"))
		return q, err
	}
	return q, badRequest("want ?dns=MESSAGE as RFC 8484 says, or ?q=NAME&t=TYPE for JSON")
}

// questionTypes are the types of records that people may ask for.
var questionTypes = map[string]dnsmessage.Type{
	"": dnsmessage.TypeA, "a": dnsmessage.TypeA, "aaaa": dnsmessage.TypeAAAA, "txt": dnsmessage.TypeTXT,
}

// newQuestion returns a DNS message that asks for a name.
func newQuestion(name, typ string) ([]byte, error) {
	t, ok := questionTypes[strings.ToLower(typ)]
	if !ok {
		return nil, badRequest("t: want A, AAAA or TXT")
	}
	n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, badRequest("q: want the name of a host")
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 1, RecursionDesired: true}) // some servers refuse ID 0
	_ = b.StartQuestions()                                                            // the builder is new
	if err := b.Question(dnsmessage.Question{Name: n, Type: t, Class: dnsmessage.ClassINET}); err != nil {
		return nil, badRequest("q: want the name of a host")
	}
	return b.Finish()
}

// writeJSON writes the records of an answer as a list of texts, or the reason for
// having none.
func writeJSON(w http.ResponseWriter, answer []byte) {
	w.Header().Set("Content-Type", "application/json")
	var v any
	records, err := recordsOf(answer)
	if v = records; err != nil {
		v = struct{ Error string }{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // a peer that has gone needs none
}

// recordsOf returns the addresses and texts of an answer. (Message.Unpack would
// link all types of records, and what prints them.)
func recordsOf(answer []byte) ([]string, error) {
	var p dnsmessage.Parser
	switch h, err := p.Start(answer); {
	case err != nil:
		return nil, err
	case h.RCode != dnsmessage.RCodeSuccess:
		return nil, errors.New("DNS: " + strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	records := []string{}
	for {
		more, err := nextRecord(&p)
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return records, nil
		case err != nil:
			return nil, err
		}
		records = append(records, more...)
	}
}

// nextRecord returns what the next record says, nothing for one of another type.
func nextRecord(p *dnsmessage.Parser) ([]string, error) {
	h, err := p.AnswerHeader()
	if err != nil {
		return nil, err
	}
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return []string{netip.AddrFrom4(r.A).String()}, err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return []string{netip.AddrFrom16(r.AAAA).String()}, err
	case dnsmessage.TypeTXT:
		r, err := p.TXTResource()
		return r.TXT, err
	}
	return nil, p.SkipAnswer()
}
