package keystore

import "crypto/subtle"

// A Doubter is a [MAC] of a device that may compute wrong tags without reporting an error.
type Doubter interface {
	MAC
	// Doubt is called if sum, which Sum returned for data, is not the tag that was expected.
	// The error is nil if the device stands by it, and otherwise mostly [ErrUnavailable]: then
	// nothing is known of the expected tag.
	Doubt(data, sum []byte) error
}

// Verify compares the tag of data with tag in constant time, and appends what m computes to
// dst. A tag that does not match is [ErrBadTag]. If a [Doubter] finds that its device is at
// fault, the tag is compared with what it computes then; if that does not match either, the
// error is that of the device.
func Verify(m MAC, dst, data, tag []byte) ([]byte, error) {
	all, err := AppendSum(m, dst, data)
	if err != nil {
		return nil, err
	}
	matches := func() bool { return subtle.ConstantTimeCompare(all[len(dst):], tag) == 1 }
	if matches() {
		return all, nil
	}
	atFault := Doubt(m, data, all[len(dst):])
	if atFault == nil {
		return nil, ErrBadTag
	}
	if all, err = AppendSum(m, dst, data); err == nil && matches() {
		return all, nil
	}
	return nil, atFault
}

// Doubt is the method of a [Doubter], and nil for any other MAC.
func Doubt(m MAC, data, sum []byte) error {
	if d, ok := m.(Doubter); ok {
		return d.Doubt(data, sum)
	}
	return nil
}

// ConfirmedSum is the tag of data which the device of m stands by: for a tag that is kept, to
// know the key by it later.
func ConfirmedSum(m MAC, data []byte) ([]byte, error) {
	sum, err := m.Sum(data)
	if err != nil {
		return nil, err
	}
	return sum, Doubt(m, data, sum)
}
