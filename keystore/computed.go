package keystore

// Computed is what a secret key that encrypts, signs or wraps makes of a constant of two or more
// blocks of eight bytes: the same key makes the same of it, in any store. It is nil for other keys.
func Computed(k Key, constant []byte) ([]byte, error) {
	switch k := k.(type) {
	case MAC:
		return ConfirmedSum(k, constant)
	case Cipher:
		return k.Encrypt(make([]byte, 16), constant)
	case DataWrapper:
		return k.WrapData(constant)
	}
	return nil, nil
}
