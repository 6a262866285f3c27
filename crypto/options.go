package crypto

import (
	"strconv"

	"github.com/qmpblock/qmpblock/qerr"
)

// Options are where the options of a new volume, or of an amendment, are taken
// from. The schema has checked them.
type Options interface {
	Has(key string) bool
	// TakeString takes an option's text.
	TakeString(key, def string) string
}

// TakeCreateOptions takes the members of the QAPI type
// QCryptoBlockCreateOptionsLUKS. prefix stands before their names in errors.
func TakeCreateOptions(o Options, prefix string) (CreateOptions, error) {
	c := CreateOptions{
		KeySecret:    o.TakeString("key-secret", ""),
		CipherAlg:    o.TakeString("cipher-alg", ""),
		CipherMode:   o.TakeString("cipher-mode", ""),
		IVGenAlg:     o.TakeString("ivgen-alg", ""),
		IVGenHashAlg: o.TakeString("ivgen-hash-alg", ""),
		HashAlg:      o.TakeString("hash-alg", ""),
		Prefix:       prefix,
	}
	var err error
	c.IterTime, err = takeInt(o, "iter-time")
	return c, err
}

// TakeAmendOptions takes the members of the QAPI type
// QCryptoBlockAmendOptionsLUKS.
func TakeAmendOptions(o Options) (AmendOptions, error) {
	a := AmendOptions{
		Active:    o.TakeString("state", "") == "active",
		NewSecret: takeString(o, "new-secret"),
		OldSecret: takeString(o, "old-secret"),
		Secret:    takeString(o, "secret"),
	}
	var err error
	if a.Keyslot, err = takeInt(o, "keyslot"); err != nil {
		return a, err
	}
	a.IterTime, err = takeInt(o, "iter-time")
	return a, err
}

func takeString(o Options, key string) *string {
	if !o.Has(key) {
		return nil
	}
	return new(o.TakeString(key, ""))
}

func takeInt(o Options, key string) (*int64, error) {
	if !o.Has(key) {
		return nil, nil
	}
	n, err := strconv.ParseInt(o.TakeString(key, ""), 10, 64)
	if err != nil {
		return nil, qerr.New("Parameter '%s' expects a number", key)
	}
	return &n, nil
}
