// Package tpmtest makes software TPMs with swtpm, each for one test. Its state is in a
// temporary directory of the test, and nothing else on the machine is used.
//
// # Which function do I want
//
//   - A TPM for a test in this process: [Start], and [TPM.Dial] for its
//     connection. Every Dial switches the TPM on, as after a loss of power.
//   - One with endorsement keys and their certificates: [StartCertified].
//   - One for other processes: [Serve], [ServeTCP] or [ServeCertified].
//   - A TPM that misbehaves: [Interpose] or [TPM.Quirky] with one of the quirks, or your
//     own, and [ServeQuirky] for other processes.
//
// Without swtpm the test is skipped, or fails if MSL_TEST_REQUIRE names swtpm.
package tpmtest
