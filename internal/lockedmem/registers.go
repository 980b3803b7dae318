package lockedmem

// nothing has a length that the compiler does not know, so that it is copied as secrets are.
var nothing = make([]byte, 256)

// ClearRegisters overwrites the vector registers of the processor, through which the built-in copy
// and ciphers take what they work on. What is left there is written to memory by the next signal,
// and Go's scheduler sends many. Whoever handled a secret outside a [Buffer] calls it at the end;
// [Buffer.Close] does.
func ClearRegisters() {
	var to [256]byte
	copy(to[:], nothing[:128]) // some processors copy more in another way
	copy(to[:], nothing)
}
