package state

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
)

// patch applies a patch of the kind that its media type names.
func (f *fakeKube) patch(name string, old map[string]any, kind string, body []byte) (int, any) {
	var err error
	s := cloneJSON(old)
	switch kind {
	case "application/json-patch+json":
		err = applyJSONPatch(s, body)
	case "application/merge-patch+json", "application/strategic-merge-patch+json":
		// Secrets have no lists that a strategic merge would join, so that the two
		// differ in the directive $patch alone.
		err = applyMergePatch(s, body, strings.Contains(kind, "strategic"))
	default:
		return refuse(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body of the request was in an unknown format")
	}
	if errors.Is(err, errPatch) {
		return refuse(http.StatusUnprocessableEntity, "Invalid", "the server rejected our request due to an error in our request")
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "BadRequest", "%v in %s", err, body)
	}
	patched, err := json.Marshal(s)
	if err != nil {
		return refuse(http.StatusBadRequest, "BadRequest", "%v", err)
	}
	next, status, answer := f.decode(patched)
	if next == nil {
		return status, answer
	}
	return f.replace(name, old, next)
}

// errPatch says that a JSON patch does not fit the object.
var errPatch = errors.New("the patch does not apply")

// applyMergePatch is RFC 7396 section 2.
func applyMergePatch(target map[string]any, body []byte, strategic bool) error {
	var p map[string]any
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	merge(target, p, strategic)
	return nil
}

func merge(target, p map[string]any, strategic bool) {
	if strategic && p["$patch"] == "replace" {
		clear(target)
		delete(p, "$patch")
	}
	for name, v := range p {
		sub, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(target, name)
		case isObject:
			into, ok := target[name].(map[string]any)
			if !ok {
				into = make(map[string]any)
				target[name] = into
			}
			merge(into, sub, strategic)
		default:
			target[name] = v
		}
	}
}

// applyJSONPatch is RFC 6902 without copy and move, for objects without lists.
func applyJSONPatch(target map[string]any, body []byte) error {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(body, &ops); err != nil {
		return err
	}
	for _, op := range ops {
		parent, last, err := resolvePointer(target, op.Path)
		if err != nil {
			return err
		}
		old, found := parent[last]
		switch {
		case op.Op == "add":
			parent[last] = op.Value
		case !found:
			return errPatch
		case op.Op == "replace":
			parent[last] = op.Value
		case op.Op == "remove":
			delete(parent, last)
		case op.Op == "test" && reflect.DeepEqual(old, op.Value):
		default:
			return errPatch
		}
	}
	return nil
}

// resolvePointer is RFC 6901: it returns the object that holds what path names.
func resolvePointer(target map[string]any, path string) (parent map[string]any, last string, err error) {
	steps := strings.Split(path, "/")
	if len(steps) < 2 || steps[0] != "" {
		return nil, "", errPatch
	}
	for i, s := range steps {
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(s)
	}
	parent = target
	for _, s := range steps[1 : len(steps)-1] {
		next, ok := parent[s].(map[string]any)
		if !ok {
			return nil, "", errPatch
		}
		parent = next
	}
	return parent, steps[len(steps)-1], nil
}
