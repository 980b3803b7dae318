package keystore

// A Joint is a [Cipher] of a store whose calls are expensive, such as one in another
// process. One call does everything that a message, or several parts of it, needs, with a
// MAC of the same store.
type Joint interface {
	Cipher
	// Joins reports whether the two keys can be used in one call.
	Joins(mac MAC) bool
	// OpenAll verifies and decrypts the elements of all in order, up to the first that fails,
	// and returns how many succeeded. Nothing is decrypted before it is verified. A tag that
	// does not match is [ErrBadTag]; a ciphertext that does not decrypt is [ErrBadData].
	OpenAll(mac MAC, all []Opening) (opened int, err error)
	// SealAll encrypts and signs all elements, or, with an error, none.
	SealAll(mac MAC, all []Sealing) error
}

// An Opening is what [Joint.OpenAll] opens: Tag must be the tag of Data. The caller ensures
// that Data contains IV and Ciphertext in some encoding.
type Opening struct {
	Data, Tag      []byte
	IV, Ciphertext []byte
	Plaintext      []byte // the decrypted bytes are appended to it
}

// A Sealing is what [Joint.SealAll] protects. Data is the ciphertext in Base64 (RFC 4648
// section 4) with Before and After around it, and Tag is the tag of Data.
type Sealing struct {
	IV, Plaintext []byte
	Before, After []byte
	Data, Tag     []byte // the results are appended to them
}
