package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// secrets are texts that must not leave the machine, by what they look like: keys
// of this and of other programs of the ecosystem, login URLs, which let whoever has
// one join this node to a tailnet of theirs, passwords in URLs, tokens, and what
// stands behind a name such as auth-key, in JSON, too, and in JSON within JSON.
var secrets = regexp.MustCompile(`(?i)` +
	`tskey-[a-z0-9_?=&-]+` +
	`|\b(privkey|nodekey-priv|hskey-[a-z]+)[:-][0-9a-z_-]+` +
	`|(auth[-_]?key|auth[-_]?url|proxy[-_]?auth|password|passwd|secret|token)\\?["']?\s*[:=]\s*` +
	`("([^"\\]|\\.)*"|\\"[^"]*"|'[^']*'|[^\s"',}]+)` +
	`|https?://[^/\s"]+/(a|register|login)/[^\s"]+` +
	`|://[^/@\s"]+:[^/@\s"]+@` +
	`|\bbearer\s+[a-z0-9._~+/=-]+`)

// redacted stands where a secret was.
const redacted = "[redacted]"

// redact returns text without what looks like a secret.
func redact(text string) string { return secrets.ReplaceAllString(text, redacted) }

// A redactor knows the secrets of its process, too, letter by letter.
type redactor struct {
	mu    sync.Mutex
	known []string // auth key and passwords
	urls  []string // that a login was asked at, the last ones
}

const (
	// minSecret is the length of the shortest secret that is looked for, in bytes:
	// shorter ones are part of too many words.
	minSecret = 4

	// maxLoginURLs is how many login URLs are known: as many as lines are kept that
	// could hold one.
	maxLoginURLs = maxRingLines
)

// know has secrets redacted from now on.
func (r *redactor) know(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = append(r.known, secrets...)
}

// knowLogin has a login URL redacted from now on.
func (r *redactor) knowLogin(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.urls, url) {
		return
	}
	r.urls = append(r.urls, url)
	r.urls = r.urls[max(0, len(r.urls)-maxLoginURLs):]
}

// redact returns text without secrets.
func (r *redactor) redact(text string) string {
	r.mu.Lock()
	all := slices.Concat(r.known, r.urls)
	r.mu.Unlock()
	var pairs []string
	for _, s := range all {
		if len(s) < minSecret {
			continue
		}
		pairs = append(pairs, s, redacted)
		if quoted := inJSON(s); quoted != s {
			pairs = append(pairs, quoted, redacted)
		}
	}
	return redact(strings.NewReplacer(pairs...).Replace(text))
}

// inJSON returns a text as it stands within a string of JSON.
func inJSON(s string) string {
	b, _ := json.Marshal(s) // texts always encode
	return string(b[1 : len(b)-1])
}
