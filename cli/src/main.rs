//! The one binary, `atoll`.

use std::process::ExitCode;

fn main() -> ExitCode {
    atoll::main()
}
