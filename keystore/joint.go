package keystore

// A Joint is a [Cipher] of a store to which each call is a long way, such as one in another
// process. In one call it does what a message needs, or several parts of it, with a MAC of
// the same store.
type Joint interface {
	Cipher
	// Joins reports whether the two keys can be used in one call.
	Joins(mac MAC) bool
	// OpenAll verifies and decrypts in the order of all, up to the first that does not
	// open, and returns how many did. Nothing is decrypted that was not verified before.
	// A tag that does not match is [ErrBadTag]; a ciphertext that does not decrypt is
	// [ErrBadData].
	OpenAll(mac MAC, all []Opening) (opened int, err error)
	// SealAll encrypts and signs, all or, with an error, none.
	SealAll(mac MAC, all []Sealing) error
}

// An Opening is what [Joint.OpenAll] opens: Tag has to be the tag of Data, of which
// IV and Ciphertext are a part in some encoding. The caller sees to that.
type Opening struct {
	Data, Tag      []byte
	IV, Ciphertext []byte
	Plaintext      []byte // what is decrypted is appended to it
}

// A Sealing is what [Joint.SealAll] protects. Data is the ciphertext in Base64 (RFC 4648
// section 4) with Before and After around it, and Tag is the tag of Data.
type Sealing struct {
	IV, Plaintext []byte
	Before, After []byte
	Data, Tag     []byte // the results, which are appended
}
