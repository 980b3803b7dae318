// Package keystoretest is the conformance suite of key stores: every provider
// passes [TestStore], so that a program that runs on one runs on all.
//
// The suite needs only a [keystore.Store]. It looks for the other abilities by their
// interfaces, [keystore.Importer], [keystore.PeerWrapper], [keystore.Admin] and
// [Leaker], and skips the tests whose interface is missing.
//
// It compares what a store computes with the standard library, with package soft and
// with the vectors of Project Wycheproof, for which a store may be a [PairProvisioner]. It cannot see whether a device keeps its keys: each provider has tests of
// its own that attack the attributes of keys.
package keystoretest
