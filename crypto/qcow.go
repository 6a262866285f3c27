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
