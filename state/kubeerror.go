package state

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxKubeMessage bounds in bytes what an error repeats of the API server's words.
const maxKubeMessage = 500

// A kubeError is an answer of the API server that is no success.
type kubeError struct {
	verb    string // what was asked for, as RBAC calls it
	status  int    // HTTP's
	reason  string // one word of the API server; may be empty
	message string // what it says of why it forbids it; empty for all else: it could repeat what we sent
}

// parseKubeError reads the Status object (Kubernetes API reference, Status v1
// meta) of an answer that has one.
func parseKubeError(verb string, status int, body []byte) *kubeError {
	var s struct {
		Kind, Reason, Message string
	}
	e := &kubeError{verb: verb, status: status}
	if json.Unmarshal(body, &s) != nil || s.Kind != "Status" {
		return e
	}
	e.reason = printable(s.Reason)
	if status == http.StatusForbidden {
		e.message = printable(s.Message)
	}
	return e
}

// printable returns text on one line, and not too much of it.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), maxKubeMessage)], "")
}

// Error says what was refused, and what to do about it.
func (e *kubeError) Error() string {
	switch {
	case e.status == http.StatusUnauthorized:
		return "the API server does not accept the token of the pod's service account: see that the account still exists"
	case e.status == http.StatusForbidden && e.verb == "create":
		return fmt.Sprintf("%s: make an empty Secret of that name, or grant the pod's service account the verb create on secrets", e.forbidden())
	case e.status == http.StatusForbidden:
		return fmt.Sprintf("%s: grant the pod's service account the verbs get, update and patch on this Secret", e.forbidden())
	case e.reason != "":
		return fmt.Sprintf("the API server refuses to %s it: %d %s", e.verb, e.status, e.reason)
	}
	return fmt.Sprintf("the API server refuses to %s it: %d %s", e.verb, e.status, http.StatusText(e.status))
}

func (e *kubeError) forbidden() string {
	if e.message == "" {
		return fmt.Sprintf("to %s it is forbidden", e.verb)
	}
	return e.message
}

// isStatus reports whether err is an answer of the API server with that status.
func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*kubeError](err)
	return ok && e.status == status
}

// isTransient reports whether the same request may succeed later: the API
// server is away, busy or starting (Kubernetes API conventions, "HTTP Status
// codes").
func isTransient(err error) bool {
	if e, ok := errors.AsType[*kubeError](err); ok {
		switch e.status {
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return errors.Is(err, errNoAnswer) && !untrusted
}
