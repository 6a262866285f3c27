package qom

import "testing"

func TestAuthorize(t *testing.T) {
	t.Parallel()
	tree := newTree()
	add := func(typ, id, props string) {
		t.Helper()
		if err := tree.Add(typ, id, parse(t, props)); err != nil {
			t.Fatal(err)
		}
	}
	add("authz-simple", "simple", `{"identity": "CN=client"}`)
	add("authz-list", "empty", `{}`)
	add("authz-list", "open", `{"policy": "allow", "rules": [{"match": "CN=bad", "policy": "deny"}]}`)
	add("authz-list", "rules", `{"rules": [{"match": "CN=bad", "policy": "deny"}, {"match": "CN=*", "policy": "allow", "format": "glob"},
		{"match": "O=*", "policy": "allow"}]}`)
	for _, tt := range []struct {
		id, identity string
		want         bool
	}{
		{"simple", "CN=client", true},
		{"simple", "CN=clients", false},
		{"simple", "cn=client", false},
		{"empty", "CN=client", false},
		{"open", "CN=client", true},
		{"open", "CN=bad", false},
		{"rules", "CN=client", true},
		{"rules", "CN=bad", false},
		{"rules", "O=x", false},
		{"rules", "O=*", true},
	} {
		if got, err := tree.Authorize(tt.id, tt.identity); got != tt.want || err != nil {
			t.Errorf("%s, %s: %v, %v", tt.id, tt.identity, got, err)
		}
	}
	_, err := tree.Authorize("nope", "x")
	expectError(t, err, "Cannot find QAuthZ object ID nope")
	add("secret", "s", `{"data": "x"}`)
	_, err = tree.Authorize("s", "x")
	expectError(t, err, "Object 's' is not a QAuthZ subclass")
}

// TestGlob compares with what the reference was seen to do.
func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true},
		{"", "", true},
		{"", "x", false},
		{"CN=cl*t", "CN=client", true},
		{"CN=clien?", "CN=client", true},
		{"CN=client?", "CN=client", false},
		{"CN=client*", "CN=client", true},
		{"CN=[c]lient", "CN=client", false},
		{`CN=\client`, "CN=client", false},
		{"cn=CLIENT", "CN=client", false},
		{"CN=*", "CN=a/b,O=c", true},
		{"CN=??,*", "CN=日本,O=c", true},
		{"CN=?,*", "CN=日本,O=c", false},
		{"*a*b*c", "xaxbxbxc", true},
		{"*a*b*c", "xaxbxbxcx", false},
		{"a**b", "ab", true},
		{"*?", "", false},
	} {
		if got := globMatches([]rune(tt.pattern), []rune(tt.text)); got != tt.want {
			t.Errorf("%q, %q: %v", tt.pattern, tt.text, got)
		}
	}
}
