//! The one binary again, under a name of its own: scenarios that need a process to kill start this one.

fn main() -> std::process::ExitCode {
    atoll::main()
}
