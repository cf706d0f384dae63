package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy"
)

// endpointForwards has the forwards of the process: GET lists them, POST adds some,
// DELETE removes some. The body is a list of forwards as the command line has them,
// such as "-L 8080:web:80".
const endpointForwards = "forwards"

// addForwards adds the endpoint to a socket.
func (f *foreground) addForwards(s *localapi.Server) {
	s.Handle(http.MethodGet, endpointForwards, localapi.MayRead, f.listForwards)
	s.Handle(http.MethodPost, endpointForwards, localapi.MayWrite, f.changeForwards(f.addSpecs))
	s.Handle(http.MethodDelete, endpointForwards, localapi.MayWrite, f.changeForwards(removeSpecs))
}

func (f *foreground) listForwards(w http.ResponseWriter, _ *http.Request) {
	all := []proxy.Status{}
	if set := f.forwards.Load(); set != nil {
		all = append(all, set.List()...)
	}
	answerJSON(w, all)
}

// A change adds forwards to a set or removes them, and returns what there is to say
// of those.
type change func(*http.Request, *proxy.Set, []proxy.Spec) ([]proxy.Status, error)

// changeForwards returns what answers requests for a change.
func (f *foreground) changeForwards(do change) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		set := f.forwards.Load()
		if set == nil {
			http.Error(w, "the node is starting: ask again in a moment", http.StatusServiceUnavailable)
			return
		}
		var words []string
		err := json.NewDecoder(r.Body).Decode(&words)
		var specs []proxy.Spec
		if err == nil {
			specs, err = parseForwards(words)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		got, err := do(r, set, specs)
		if err != nil {
			http.Error(w, err.Error(), changeStatus(err))
			return
		}
		answerJSON(w, got)
	}
}

// changeStatus is the HTTP status of a change that failed.
func changeStatus(err error) int {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return http.StatusBadRequest
	case errors.Is(err, proxy.ErrNoForward):
		return http.StatusNotFound
	case errors.Is(err, proxy.ErrDrained):
		return http.StatusServiceUnavailable
	}
	return http.StatusConflict
}

func (f *foreground) addSpecs(r *http.Request, set *proxy.Set, specs []proxy.Spec) ([]proxy.Status, error) {
	for _, spec := range specs {
		if err := f.settings.Get().CheckExposure(spec); err != nil {
			return nil, &usageError{err}
		}
	}
	if err := set.Add(r.Context(), specs...); err != nil {
		return nil, hintedError(err)
	}
	return statusOf(set, specs), nil
}

func removeSpecs(r *http.Request, set *proxy.Set, specs []proxy.Spec) ([]proxy.Status, error) {
	return []proxy.Status{}, set.Remove(r.Context(), specs...)
}

// statusOf returns how those forwards of a set fare. Proxies may have become one
// with those of another kind on the same address.
func statusOf(set *proxy.Set, specs []proxy.Spec) []proxy.Status {
	named := func(s proxy.Status) bool {
		return slices.ContainsFunc(specs, func(spec proxy.Spec) bool {
			if s.Forward == spec.String() {
				return true
			}
			spec.Kind = proxy.Mixed
			return s.Target == "" && s.Forward == spec.String()
		})
	}
	all := []proxy.Status{}
	for _, s := range set.List() {
		if named(s) {
			all = append(all, s)
		}
	}
	return all
}

// forwardWords returns forwards with the flag of each before it, which parseForwards
// reads.
func forwardWords(local, remote, socks, http []string) (words []string) {
	for _, each := range []struct {
		kind  proxy.Kind
		texts []string
	}{{proxy.Local, local}, {proxy.Remote, remote}, {proxy.SOCKS, socks}, {proxy.HTTP, http}} {
		for _, text := range each.texts {
			words = append(words, each.kind.String()+" "+text)
		}
	}
	return words
}

// parseForwards reads forwards as the command line has them, flag and text of each
// apart by a space.
func parseForwards(words []string) (specs []proxy.Spec, err error) {
	for _, word := range words {
		flag, text, _ := strings.Cut(word, " ")
		parse, ok := forwardParsers[flag]
		if !ok {
			return nil, fmt.Errorf("%q: want -L, -R, -D or --http-proxy, a space and a forward", word)
		}
		some, err := parse(text)
		if err != nil {
			return nil, err
		}
		specs = append(specs, some...)
	}
	return specs, nil
}

// forwardParsers read what follows a flag.
var forwardParsers = map[string]func(string) ([]proxy.Spec, error){
	proxy.Local.String():  proxy.ParseLocal,
	proxy.Remote.String(): proxy.ParseRemote,
	proxy.SOCKS.String():  parseProxy(proxy.SOCKS),
	proxy.HTTP.String():   parseProxy(proxy.HTTP),
}
