package crypto

// OpenQCow opens the encryption that qcow2 had before LUKS: AES-128 in CBC
// mode, whose key is the password itself, cut off or filled up with zeroes to
// 16 bytes.
func OpenQCow(id, prefix string, secrets Secrets) (*Volume, error) {
	password, err := secrets.required(id, prefix)
	if err != nil {
		return nil, err
	}
	alg, err := algorithmNamed("aes-128")
	if err != nil {
		return nil, err
	}
	key := make([]byte, alg.keySize)
	copy(key, password)
	return newVolume(suite{alg: alg, mode: modeCBC, iv: ivPlain64}, key)
}

// OpenLUKS reads a header and opens its volume with the passphrase in a secret.
// As in the reference the secret is looked for first.
func OpenLUKS(r Storage, detached bool, id, prefix string, secrets Secrets) (*LUKS, *Volume, error) {
	passphrase, err := secrets.required(id, prefix)
	if err != nil {
		return nil, nil, err
	}
	l, err := ReadLUKS(r, detached)
	if err != nil {
		return nil, nil, err
	}
	v, err := l.Unlock(r, passphrase)
	return l, v, err
}
