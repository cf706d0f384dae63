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
// one join this node to a tailnet of theirs, passwords in URLs, tokens, and names such
// as auth-key, before what is secret. All that stands in JSON, too, and in JSON within
// JSON, where quotes have backslashes.
//
// The group is what ends such a name in JSON; of the other texts it is nothing.
var secrets = regexp.MustCompile(`(?i)` +
	`(?:auth[-_]?key|auth[-_]?url|proxy[-_]?auth|password|passwd|secret|token)(\\*["']|)\s*[:=]\s*` +
	`|tskey-[a-z0-9_?=&-]+` +
	`|\b(?:privkey|nodekey-priv|hskey-[a-z]+)[:-][0-9a-z_-]+` +
	`|https?://[^/\s"\\]+/(?:a|register|login)/(?:\\+u[0-9a-f]{4}|[^\s"\\])+` +
	`|://[^/@\s"]+:[^/@\s"]+@` +
	`|\bbearer\s+[a-z0-9._~+/=-]+`)

// redacted stands where a secret was.
const redacted = "[redacted]"

// redact returns text without what looks like a secret. JSON stays JSON.
func redact(text string) string {
	var b strings.Builder
	for {
		at := secrets.FindStringSubmatchIndex(text)
		if at == nil {
			return b.String() + text
		}
		if isName := at[2] >= 0; !isName {
			b.WriteString(text[:at[0]] + redacted)
			text = text[at[1]:]
			continue
		}
		b.WriteString(text[:at[1]])
		value, quote := cutValue(text[at[1]:], text[at[2]:at[3]])
		if value > 0 {
			b.WriteString(quote + redacted + quote)
		}
		text = text[at[1]+value:]
	}
}

// bareValue is a value without quotes, with which no list or object begins.
var bareValue = regexp.MustCompile(`^[^\s"',{}\[\]\\]+`)

// cutValue returns how long the value is that text begins with, its quotes included,
// and the quote to put around what takes its place: of one without quotes, a number
// of JSON, say, that is the quote of its name.
func cutValue(text, nameQuote string) (length int, quote string) {
	backslashes := len(text) - len(strings.TrimLeft(text, `\`))
	switch rest := text[backslashes:]; {
	case strings.HasPrefix(rest, "'") && backslashes == 0:
		if end := strings.IndexByte(rest[1:], '\''); end >= 0 {
			return end + 2, "'"
		}
	case strings.HasPrefix(rest, `"`):
		return endOfString(text, backslashes), text[:backslashes+1]
	}
	return len(bareValue.FindString(text)), nameQuote
}

// endOfString returns where a string of JSON ends that text begins with, whose quotes
// have so many backslashes. Within it quotes have more of them, and what ends with
// backslashes has a multiple before its quote.
func endOfString(text string, backslashes int) int {
	run := 0
	for i := backslashes + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			run++
			continue
		case '"':
			switch {
			case run < backslashes:
				return i - run // the text around ends
			case (run-backslashes)%(2*(backslashes+1)) == 0:
				return i + 1
			}
		case '\n':
			return i // it was cut off
		}
		run = 0
	}
	return len(text)
}

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
