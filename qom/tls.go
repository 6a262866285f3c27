package qom

import (
	"slices"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tlssession"
)

// tlsCreds is the value of a tls-creds object of any type.
type tlsCreds struct {
	guarded[tlsProps]
	// What complete has loaded: one of the two. Anonymous credentials have
	// nothing.
	x509 *tlssession.X509
	psk  *tlssession.PSK
}

// tlsProps are the properties; nil for what was not given. Once the object is
// complete, changes of files and names have no effect, as in the reference.
type tlsProps struct {
	verifyPeer, sanityCheck             bool
	dir, priority, passwordID, username *string
	endpoint                            string
}

func newTLSCreds(*Object) any {
	return &tlsCreds{guarded: guarded[tlsProps]{props: tlsProps{verifyPeer: true, sanityCheck: true, endpoint: "client"}}}
}

func (p *tlsProps) side() tlssession.Endpoint {
	if p.endpoint == "server" {
		return tlssession.Server
	}
	return tlssession.Client
}

// Complete reads and checks the files.
func (c *tlsCreds) Complete(o *Object) (err error) {
	props := c.snapshot()
	var x509 *tlssession.X509
	var psk *tlssession.PSK
	switch o.Type() {
	case "tls-creds-x509":
		x509, err = tlssession.LoadX509(tlssession.X509Options{
			Dir: props.dir, Endpoint: props.side(), SanityCheck: props.sanityCheck,
			PasswordID: props.passwordID, Secret: o.tree.Secret,
		})
	case "tls-creds-psk":
		psk, err = tlssession.LoadPSK(props.dir, props.side(), props.username)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.x509, c.psk = x509, psk
	return err
}

// TLSCredentials returns what the object of that id has for one side of a
// connection. It stays good when the object is deleted. Anonymous credentials
// can be made, but not used: crypto/tls does not speak without a certificate.
func (t *Tree) TLSCredentials(id string, endpoint tlssession.Endpoint) (tlssession.Credentials, error) {
	o := t.Lookup(id)
	if o == nil {
		return nil, qerr.New("No TLS credentials with id '%s'", id)
	}
	c, ok := o.Value.(*tlsCreds)
	if !ok {
		return nil, qerr.New("Object with id '%s' is not TLS credentials", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.props.side() != endpoint {
		return nil, qerr.New("Expected TLS credentials for a %s endpoint", endpoint)
	}
	priority := ""
	if c.props.priority != nil {
		priority = *c.props.priority
	}
	switch {
	case c.x509 != nil:
		x509 := *c.x509
		x509.VerifyPeer, x509.Priority = c.props.verifyPeer, priority
		return &x509, nil
	case c.psk != nil:
		psk := *c.psk
		psk.Priority = priority
		return &psk, nil
	}
	return nil, qerr.New("TLS sessions with credentials of type '%s' are not supported", o.Type())
}

// tlsTypes are tls-creds and its descendants.
func tlsTypes() []*Type {
	creatable := []string{typeUserCreatable}
	return slices.Concat(
		children(typeObject, &Type{Name: "tls-creds", Abstract: true, Properties: []*Property{
			boolProperty("verify-peer", func(p *tlsProps) *bool { return &p.verifyPeer }),
			optionalProperty("dir", func(p *tlsProps) **string { return &p.dir }),
			enumProperty("endpoint", "QCryptoTLSCredsEndpoint", []string{"client", "server"}, func(p *tlsProps) *string { return &p.endpoint }),
			optionalProperty("priority", func(p *tlsProps) **string { return &p.priority }),
		}}),
		children("tls-creds",
			&Type{Name: "tls-creds-anon", Interfaces: creatable, New: newTLSCreds},
			&Type{Name: "tls-creds-psk", Interfaces: creatable, New: newTLSCreds, Properties: []*Property{
				optionalProperty("username", func(p *tlsProps) **string { return &p.username }),
			}},
			&Type{Name: "tls-creds-x509", Interfaces: creatable, New: newTLSCreds, Properties: []*Property{
				boolProperty("sanity-check", func(p *tlsProps) *bool { return &p.sanityCheck }),
				optionalProperty("passwordid", func(p *tlsProps) **string { return &p.passwordID }),
			}}),
	)
}
