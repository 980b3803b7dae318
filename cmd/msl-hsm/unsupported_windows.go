// Command msl-hsm does not run on Windows: its build fails with a single error that says
// so.
package main

func main() { msl_hsm_does_not_run_on_Windows_use_Linux_or_macOS_or_WSL_2() }
