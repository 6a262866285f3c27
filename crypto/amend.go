package crypto

import (
	"github.com/qmpblock/qmpblock/qerr"
)

// AmendOptions say which key slots change, as the QAPI type
// QCryptoBlockAmendOptionsLUKS does; nil is what is not given.
type AmendOptions struct {
	// Active slots are filled, others erased.
	Active bool
	// Secrets by their ids: NewSecret is put into a slot, OldSecret chooses
	// slots to erase, Secret opens the volume.
	NewSecret, OldSecret, Secret *string
	// Keyslot is the slot that is meant.
	Keyslot *int64
	// IterTime is how many milliseconds the derivation of the key from the
	// passphrase takes.
	IterTime *int64
	// Force lets slots be overwritten, and the last one erased.
	Force bool
	// Opened is the id of the secret with which the volume was opened.
	Opened string
}

// Amend fills or erases key slots, of a header on s.
func (l *LUKS) Amend(s Storage, o AmendOptions, secrets Secrets) error {
	if o.Active {
		return l.amendActive(s, o, secrets)
	}
	return l.amendInactive(s, o, secrets)
}

func (l *LUKS) amendActive(s Storage, o AmendOptions, secrets Secrets) error {
	switch {
	case o.NewSecret == nil:
		return qerr.New("'new-secret' is required to activate a keyslot")
	case o.OldSecret != nil:
		return qerr.New("'old-secret' must not be given when activating keyslots")
	}
	n, err := l.freeSlot(o)
	if err != nil {
		return err
	}
	id := o.Opened
	if o.Secret != nil {
		id = *o.Secret
	}
	passphrase, err := secrets.passphrase(id)
	if err != nil {
		return err
	}
	key, err := l.masterKey(s, passphrase)
	if err != nil {
		return err
	}
	if passphrase, err = secrets.passphrase(*o.NewSecret); err != nil {
		return err
	}
	iterations, err := l.hash.iterations(iterTime(o.IterTime), 1, len(key))
	if err != nil {
		return err
	}
	return l.storeKey(s, n, key, passphrase, iterations)
}

// freeSlot is the slot that is to be filled.
func (l *LUKS) freeSlot(o AmendOptions) (int, error) {
	if o.Keyslot == nil {
		for n := range keySlots {
			if !l.active(n) {
				return n, nil
			}
		}
		return 0, qerr.New("Can't add a keyslot - all keyslots are in use")
	}
	n := int32(*o.Keyslot) // as the reference does
	if n < 0 || n >= keySlots {
		return 0, qerr.New("Invalid keyslot %d specified, must be between 0 and %d", uint32(n), keySlots-1)
	}
	if l.active(int(n)) && !o.Force {
		return 0, qerr.New("Refusing to overwrite active keyslot %d - please erase it first", n)
	}
	return int(n), nil
}

func (l *LUKS) amendInactive(s Storage, o AmendOptions, secrets Secrets) error {
	switch {
	case o.NewSecret != nil:
		return qerr.New("'new-secret' must not be given when erasing keyslots")
	case o.IterTime != nil:
		return qerr.New("'iter-time' must not be given when erasing keyslots")
	case o.Secret != nil:
		return qerr.New("'secret' must not be given when erasing keyslots")
	}
	var old []byte
	if o.OldSecret != nil {
		var err error
		if old, err = secrets.passphrase(*o.OldSecret); err != nil {
			return err
		}
	}
	switch {
	case o.Keyslot != nil:
		return l.eraseOne(s, o, old)
	case o.OldSecret != nil:
		return l.eraseMatching(s, o, old)
	}
	return qerr.New("To erase keyslot(s), either explicit keyslot index " +
		"or the password currently contained in them must be given")
}

// eraseOne erases the slot that is named, if it knows the old passphrase.
func (l *LUKS) eraseOne(s Storage, o AmendOptions, old []byte) error {
	n := int(int32(*o.Keyslot)) // as the reference does
	if n < 0 || n >= keySlots {
		return qerr.New("Invalid keyslot %d specified, must be between 0 and %d", n, keySlots-1)
	}
	if o.OldSecret != nil {
		key, err := l.openSlot(s, n, old)
		if err != nil {
			return err
		}
		if key == nil {
			return qerr.New("Given keyslot %d doesn't contain the given old password for erase operation", n)
		}
	}
	switch {
	case o.Force:
	case !l.active(n):
		return qerr.New("Given keyslot %d is already erased (inactive) ", n)
	case l.countActive() == 1:
		return qerr.New("Attempt to erase the only active keyslot %d "+
			"which will erase all the data in the image irreversibly - refusing operation", n)
	}
	return l.eraseSlot(s, n)
}

// eraseMatching erases all slots that know the old passphrase.
func (l *LUKS) eraseMatching(s Storage, o AmendOptions, old []byte) error {
	var matching []int
	for n := range keySlots {
		key, err := l.openSlot(s, n, old)
		if err != nil {
			return err
		}
		if key != nil {
			matching = append(matching, n)
		}
	}
	if len(matching) == 0 {
		return qerr.New("No keyslots match given (old) password for erase operation")
	}
	if len(matching) == l.countActive() && !o.Force {
		return qerr.New("All the active keyslots match the (old) password that was given " +
			"and erasing them will erase all the data in the image irreversibly - refusing operation")
	}
	for _, n := range matching {
		if err := l.eraseSlot(s, n); err != nil {
			return err
		}
	}
	return nil
}
