// Package tlsalerttest injects alerts into TLS connections, for tests: any alert, in
// any state of a connection, in either direction, encrypted as the peer would have
// encrypted it.
//
// A [Wire] lies between the two ends and learns the keys from the server's KeyLogWriter.
// It supports TLS 1.2 and 1.3 with AES-128-GCM.
package tlsalerttest
