package cli

import (
	"github.com/spf13/cobra"
)

const exitText = `Exit codes:

  0  done
  1  failed; the message says why
  2  wrong usage or configuration: correct the command line or the file
  3  the peer refused the message with an MSL error, or refused to enroll
     the device
  4  the key store is not available: the module, token or key is missing, the HSM
     or TPM does not answer or is a different one, or the key at the handle of a
     TPM's storage key cannot be used
  5  a PIN, password or key file was refused or cannot be read. A PIN that was
     refused is never retried automatically: tokens count failed tries and lock
  6  no answer: the server cannot be reached, sent no MSL message or only part
     of one, or took longer than --timeout
  7  the device waits for approval at the server; run the command again once it
     is approved
  8  a server or an agent was asked to stop but had to be ended by force:
     something did not finish in time (server.shutdown, client.agent.shutdown),
     such as a call into a PKCS #11 module that does not return, or a second
     signal arrived. The log says what it was waiting for
  9  the server is not the trusted one: its key, identity or TLS certificate differs,
     or a signature in its answer is wrong. Its answer is ignored
141  the output was not read to the end, as in msl-hsm errors | head -1; the command
     itself succeeded
`

func exitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitText}
}
