// Package tlsalerttest puts alerts into TLS connections, for tests: any alert, at
// any state of a connection, in either direction, encrypted as the peer would have
// encrypted it.
//
// A [Wire] lies between the two ends and learns the keys by the KeyLogWriter of the
// server. It knows TLS 1.2 and 1.3 with AES-128-GCM.
package tlsalerttest
