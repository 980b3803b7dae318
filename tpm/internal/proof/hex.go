package proof

import "encoding/hex"

// HexBytes are written as hexadecimal digits.
type HexBytes []byte

// MarshalText writes hexadecimal digits.
func (h HexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hexadecimal digits.
func (h *HexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// String returns hexadecimal digits.
func (h HexBytes) String() string { return hex.EncodeToString(h) }
