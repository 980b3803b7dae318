//go:build !cgo || nopkcs11

package main

const withPKCS11 = false

func findSoftHSM() error { return noPKCS11() }
