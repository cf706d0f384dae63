package state

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A fakeKube is an API server for Secrets of one namespace. It does what the
// Kubernetes documentation says of the real one ("Kubernetes API Concepts", "API
// conventions", and the reference of Secret v1 core): versions, conflicts, the
// three kinds of patches, rights by verb, tokens and watches.
type fakeKube struct {
	t         testing.TB
	namespace string

	mu      sync.Mutex
	secrets map[string]map[string]any // by name, as JSON
	version int                       // of all that is stored
	events  []kubeEvent               // all since compacted
	changed chan struct{}             // closed at the next event
	oldest  int                       // events up to this version are forgotten
	token   string                    // the one that is accepted
	denied  map[string]bool           // verbs that the pod may not use
	failing []int                     // statuses of the next answers
	ahead   map[string]func()         // run ahead of the next request of a verb
	log     []string                  // verb and status of each answer
}

type kubeEvent struct {
	version int
	Type    string `json:"type"`
	Object  any    `json:"object"`
}

func newFakeKube(t testing.TB) *fakeKube {
	return &fakeKube{
		t: t, namespace: "apps", secrets: make(map[string]map[string]any), version: 100,
		changed: make(chan struct{}), token: "token-1", denied: make(map[string]bool),
		ahead: make(map[string]func()),
	}
}

// take returns the log since the last call.
func (f *fakeKube) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := strings.Join(f.log, ", ")
	f.log = nil
	return log
}

// set does what somebody else may do: it gives the Secret values.
func (f *fakeKube) set(name string, values map[string][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.secrets[name]
	if !ok {
		s = map[string]any{"metadata": map[string]any{"name": name}}
	}
	s = cloneJSON(s)
	data, _ := s["data"].(map[string]any)
	if data == nil {
		data = make(map[string]any)
	}
	for key, v := range values {
		data[key] = base64.StdEncoding.EncodeToString(v)
	}
	if len(data) > 0 {
		s["data"] = data
	}
	f.store(name, s)
}

// get returns the values of a Secret.
func (f *fakeKube) get(name string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	values := make(map[string]string)
	data, _ := f.secrets[name]["data"].(map[string]any)
	for key, v := range data {
		b, err := base64.StdEncoding.DecodeString(v.(string))
		if err != nil {
			f.t.Error(err)
		}
		values[key] = string(b)
	}
	return values
}

// whole returns a Secret as JSON.
func (f *fakeKube) whole(name string) map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cloneJSON(f.secrets[name])
}

// remove deletes a Secret.
func (f *fakeKube) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := cloneJSON(f.secrets[name])
	delete(f.secrets, name)
	s["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(f.version + 1)
	f.note("DELETED", s)
}

// deny takes verbs away from the pod.
func (f *fakeKube) deny(verbs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range verbs {
		f.denied[v] = true
	}
}

// fail has the next requests answered with these statuses.
func (f *fakeKube) fail(statuses ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = statuses
}

// at runs do ahead of the next request of a verb, once.
func (f *fakeKube) at(verb string, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead[verb] = do
}

func (f *fakeKube) interfere(verb string) {
	f.mu.Lock()
	do := f.ahead[verb]
	delete(f.ahead, verb)
	f.mu.Unlock()
	if do != nil {
		do()
	}
}

// accept changes the token that is accepted.
func (f *fakeKube) accept(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = token
}

// store keeps a Secret under the next version, unless it is the same as before.
func (f *fakeKube) store(name string, s map[string]any) map[string]any {
	old, had := f.secrets[name]
	s["apiVersion"], s["kind"] = "v1", "Secret"
	if s["type"] == nil {
		s["type"] = "Opaque"
	}
	meta := s["metadata"].(map[string]any)
	meta["namespace"], meta["uid"] = f.namespace, "uid-of-"+name
	if had {
		meta["resourceVersion"] = version(old)
		if reflect.DeepEqual(old, s) {
			return old
		}
	}
	meta["resourceVersion"] = strconv.Itoa(f.version + 1)
	f.secrets[name] = s
	f.note(map[bool]string{true: "MODIFIED", false: "ADDED"}[had], s)
	return s
}

func (f *fakeKube) note(kind string, s map[string]any) {
	f.version++
	f.events = append(f.events, kubeEvent{f.version, kind, cloneJSON(s)})
	close(f.changed)
	f.changed = make(chan struct{})
}

func version(s map[string]any) any {
	meta, _ := s["metadata"].(map[string]any)
	return meta["resourceVersion"]
}

// kubeVerbs are what RBAC calls the methods on a Secret; all on the collection
// are another word.
var kubeVerbs = map[string]string{"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

// ServeHTTP answers as the API server does.
func (f *fakeKube) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, inside := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/"+f.namespace+"/secrets")
	name = strings.TrimPrefix(name, "/")
	verb := kubeVerbs[r.Method]
	switch {
	case name == "" && r.Method == "POST":
		verb = "create"
	case name == "" && r.URL.Query().Get("watch") != "":
		verb = "watch"
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || !inside || verb == "" || name == "" && verb != "create" && verb != "watch" {
		f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return
	}
	f.interfere(verb)
	f.mu.Lock()
	status, answer := f.answer(r, verb, name, body)
	f.log = append(f.log, fmt.Sprintf("%s %d", verb, status))
	sent, err := json.Marshal(answer)
	f.mu.Unlock()
	if err != nil {
		f.t.Error(err)
	}
	if status == 0 {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	w.Header().Set("Content-Type", "application/json")
	if status/100 == 3 {
		w.Header().Set("Location", "https://elsewhere/")
	}
	w.WriteHeader(status)
	if verb == "watch" && status == http.StatusOK {
		f.watch(w, r)
		return
	}
	_, _ = w.Write(sent)
}

// answer authenticates and authorizes a request, and carries it out.
func (f *fakeKube) answer(r *http.Request, verb, name string, body []byte) (int, any) {
	if len(f.failing) > 0 {
		status := f.failing[0]
		f.failing = f.failing[1:]
		return refuse(status, "Failure", "as the test has it: %s", body) // repeats what was sent
	}
	if r.Header.Get("Authorization") != "Bearer "+f.token {
		return refuse(http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	}
	if f.denied[verb] {
		subject := strings.TrimSuffix(fmt.Sprintf("secrets %q", name), ` ""`) // a new one has no name yet
		return refuse(http.StatusForbidden, "Forbidden",
			`%s is forbidden: User "system:serviceaccount:apps:default" cannot %s resource "secrets" in API group "" in the namespace %q`, subject, verb, f.namespace)
	}
	old, found := f.secrets[name]
	if !found && verb != "create" && verb != "watch" {
		return refuse(http.StatusNotFound, "NotFound", "secrets %q not found", name)
	}
	switch verb {
	case "watch":
		return http.StatusOK, nil // the events follow
	case "create":
		return f.create(body)
	case "update":
		return f.update(name, old, body)
	case "patch":
		return f.patch(name, old, r.Header.Get("Content-Type"), body)
	}
	return http.StatusOK, old
}

func (f *fakeKube) create(body []byte) (int, any) {
	s, status, answer := f.decode(body)
	if s == nil {
		return status, answer
	}
	meta, _ := s["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if _, found := f.secrets[name]; found {
		return refuse(http.StatusConflict, "AlreadyExists", "secrets %q already exists", name)
	}
	if name == "" || meta["resourceVersion"] != nil {
		return refuse(http.StatusBadRequest, "BadRequest", "resourceVersion should not be set on objects to be created")
	}
	return http.StatusCreated, f.store(name, s)
}

func (f *fakeKube) update(name string, old map[string]any, body []byte) (int, any) {
	s, status, answer := f.decode(body)
	if s == nil {
		return status, answer
	}
	return f.replace(name, old, s)
}

// replace stores what an update or a patch has made of a Secret. One without a
// version replaces any.
func (f *fakeKube) replace(name string, old, s map[string]any) (int, any) {
	meta, _ := s["metadata"].(map[string]any)
	if meta["name"] != name {
		return refuse(http.StatusBadRequest, "BadRequest", "the name of the object does not match the name on the URL")
	}
	if v := meta["resourceVersion"]; v != nil && v != "" && v != version(old) {
		return refuse(http.StatusConflict, "Conflict",
			"Operation cannot be fulfilled on secrets %q: the object has been modified; please apply your changes to the latest version and try again", name)
	}
	if old["immutable"] == true && !reflect.DeepEqual(old["data"], s["data"]) {
		return refuse(http.StatusUnprocessableEntity, "Invalid", "Secret %q is invalid: data: Forbidden: field is immutable when `immutable` is set", name)
	}
	return http.StatusOK, f.store(name, s)
}

// secretFields are the members of a Secret; the API server drops others.
var secretFields = []string{"apiVersion", "kind", "metadata", "data", "type", "immutable"}

var validDataKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// decode reads and checks a Secret. It returns nil, and what to answer, for one
// that is not valid.
func (f *fakeKube) decode(body []byte) (s map[string]any, status int, answer any) {
	if err := json.Unmarshal(body, &s); err != nil || s["kind"] != "Secret" || s["apiVersion"] != "v1" {
		status, answer = refuse(http.StatusBadRequest, "BadRequest", "the object provided is unrecognized: %s", body)
		return nil, status, answer
	}
	maps.DeleteFunc(s, func(name string, _ any) bool { return !slices.Contains(secretFields, name) })
	data, _ := s["data"].(map[string]any)
	size := 0
	for key, v := range data {
		text, _ := v.(string) // null is an empty value
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			status, answer = refuse(http.StatusBadRequest, "BadRequest", "illegal base64 data in %s", body)
			return nil, status, answer
		}
		data[key] = text
		size += len(b)
		if !validDataKey.MatchString(key) {
			status, answer = refuse(http.StatusUnprocessableEntity, "Invalid", "data[%s]: Invalid value", key)
			return nil, status, answer
		}
	}
	if size > 1<<20 {
		status, answer = refuse(http.StatusUnprocessableEntity, "Invalid", "data: Too long: must have at most 1048576 bytes")
		return nil, status, answer
	}
	if len(data) == 0 {
		delete(s, "data")
	}
	return s, 0, nil
}

// refuse returns a Status object.
func refuse(status int, reason, format string, args ...any) (int, any) {
	return status, map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": fmt.Sprintf(format, args...), "reason": reason, "code": status,
	}
}

// watch sends what happens to one Secret behind a version, until the client goes.
func (f *fakeKube) watch(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		f.t.Errorf("watch %s: %v", r.URL, err)
		return
	}
	for {
		events, changed, gone := f.since(since)
		for _, e := range events {
			since = e.version
			if object := e.Object.(map[string]any); object["metadata"].(map[string]any)["name"] == name {
				_ = json.NewEncoder(w).Encode(e)
			}
		}
		if gone {
			_, status := refuse(http.StatusGone, "Expired", "too old resource version")
			_ = json.NewEncoder(w).Encode(kubeEvent{Type: "ERROR", Object: status})
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// since returns the events behind a version; gone when some of them are
// forgotten.
func (f *fakeKube) since(version int) (events []kubeEvent, changed <-chan struct{}, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.version > version {
			events = append(events, e)
		}
	}
	if version < f.oldest {
		return nil, nil, true
	}
	return events, f.changed, false
}

// forget drops all events, as the API server does after some minutes.
func (f *fakeKube) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.oldest = nil, f.version
}

func cloneJSON(v map[string]any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}
