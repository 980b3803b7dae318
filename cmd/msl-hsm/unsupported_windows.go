// Command msl-hsm does not run on Windows, which is told by the one error of its build.
package main

func main() { msl_hsm_does_not_run_on_Windows_use_Linux_or_macOS_or_WSL_2() }
