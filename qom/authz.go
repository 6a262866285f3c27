package qom

import (
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// authzSimple is the value of an authz-simple object: it names one identity
// that is let in.
type authzSimple struct{ guarded[authzIdentity] }

type authzIdentity struct{ identity string }

// authzList is the value of an authz-list object: the first rule that matches
// an identity decides, the policy if none does.
type authzList struct{ guarded[authzRules] }

// authzRules are the properties. The slice is replaced, never changed.
type authzRules struct {
	policy string
	rules  []authzRule
}

type authzRule struct {
	match, policy string
	format        string // "" when not given: exact
}

func authzPolicies() []string { return []string{"deny", "allow"} }

func newAuthzSimple(*Object) any { return &authzSimple{} }
func newAuthzList(*Object) any {
	return &authzList{guarded[authzRules]{props: authzRules{policy: "deny"}}}
}

func visitRule(v qjson.Value, path string) (r authzRule, err error) {
	if v.Kind() != qjson.Object {
		return r, wrongType(path, "object")
	}
	if r.match, err = visitMember(v, path, "match", visitString); err != nil {
		return r, err
	}
	r.policy, err = visitMember(v, path, "policy", func(v qjson.Value, path string) (string, error) {
		return visitEnum(v, path, "policy", authzPolicies())
	})
	if err != nil {
		return r, err
	}
	if format := v.Get("format"); format.Exists() {
		if r.format, err = visitEnum(format, path+".format", "format", []string{"exact", "glob"}); err != nil {
			return r, err
		}
	}
	return r, checkMembers(v, path, func(name string) bool { return name == "match" || name == "policy" || name == "format" })
}

func (r authzRule) appendJSON(dst []byte) []byte {
	names := []string{"match", "policy"}
	if r.format != "" {
		names = append(names, "format")
	}
	values := map[string]string{"match": r.match, "policy": r.policy, "format": r.format}
	return appendSorted(dst, names, func(dst []byte, name string) []byte { return qjson.AppendString(dst, values[name]) })
}

// Authorize asks the authorization object of that id whether an identity may
// come in.
func (t *Tree) Authorize(id, identity string) (bool, error) {
	o := t.Lookup(id)
	if o == nil {
		return false, qerr.New("Cannot find QAuthZ object ID %s", id)
	}
	a, ok := o.Value.(interface{ allows(identity string) bool })
	if !ok {
		return false, qerr.New("Object '%s' is not a QAuthZ subclass", id)
	}
	return a.allows(identity), nil
}

func (a *authzSimple) allows(identity string) bool {
	return a.snapshot().identity == identity
}

func (a *authzList) allows(identity string) bool {
	props := a.snapshot()
	for _, r := range props.rules {
		if r.matches(identity) {
			return r.policy == "allow"
		}
	}
	return props.policy == "allow"
}

func (r *authzRule) matches(identity string) bool {
	if r.format == "glob" {
		return globMatches([]rune(r.match), []rune(identity))
	}
	return r.match == identity
}

// globMatches knows GLib's patterns: * stands for any characters, ? for one,
// and nothing else is special (observed). After a mismatch only the last star
// can take one more, so time is at most the product of the lengths.
func globMatches(pattern, text []rune) bool {
	star, mark, p, t := -1, 0, 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func rulesProperty() *Property {
	return &Property{
		Name: "rules",
		Type: "QAuthZListRule",
		Get: func(o *Object, dst []byte) ([]byte, error) {
			dst = append(dst, '[')
			for i, r := range o.Value.(*authzList).snapshot().rules {
				if i > 0 {
					dst = append(dst, ", "...)
				}
				dst = r.appendJSON(dst)
			}
			return append(dst, ']'), nil
		},
		// As in the reference a value with a mistake leaves no rules at all.
		Set: func(o *Object, v qjson.Value) error {
			rules, err := visitList(v, "rules", visitRule)
			a := o.Value.(*authzList)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.props.rules = rules
			return err
		},
	}
}

// authzTypes are authz and its descendants. Files of rules cannot be used: the
// reference lists their type but knows it under another name when one is to be
// created, and so creates none.
func authzTypes() []*Type {
	return []*Type{
		{Name: "authz", Parent: typeObject, Abstract: true},
		{Name: "authz-list", Parent: "authz", Interfaces: []string{typeUserCreatable}, New: newAuthzList, Properties: []*Property{
			enumProperty("policy", "QAuthZListPolicy", authzPolicies(), func(p *authzRules) *string { return &p.policy }), rulesProperty(),
		}},
		{Name: "authz-list-file", Parent: "authz", Interfaces: []string{typeUserCreatable}, Properties: []*Property{
			{Name: "filename", Type: "string"}, {Name: "refresh", Type: "bool"},
		}},
		{Name: "authz-simple", Parent: "authz", Interfaces: []string{typeUserCreatable}, New: newAuthzSimple, Properties: []*Property{
			stringProperty("identity", func(p *authzIdentity) *string { return &p.identity }),
		}},
	}
}
