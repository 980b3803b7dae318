//go:build !unix

package secret

const nonBlocking = 0
