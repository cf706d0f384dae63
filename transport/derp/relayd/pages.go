package relayd

import (
	"io"
	"net/http"
)

// blankHome is the value of --home for a page without content.
const blankHome = "blank"

// infoPage tells who stumbles over a relay what it is.
const infoPage = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>DERP relay</title></head><body>
<h1>DERP</h1>
<p>This is a DERP relay of a tailnet. It passes encrypted WireGuard packets between
the tailnet's nodes where they cannot reach each other directly, and helps them to
find a direct path. It cannot read what it passes on.</p>
</body></html>
`

const robotsText = "User-agent: *\nDisallow: /\n"

// browserSafe adds what keeps a page from being used against its reader
// (DERP-95).
func browserSafe(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'; block-all-mixed-content")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		next(w, r)
	}
}

// home returns what answers / and every unknown path.
func home(setting string) http.HandlerFunc {
	switch setting {
	case "":
		return page("text/html; charset=utf-8", infoPage)
	case blankHome:
		return page("text/html; charset=utf-8", "")
	}
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, setting, http.StatusFound) }
}

func page(contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, text)
	}
}
