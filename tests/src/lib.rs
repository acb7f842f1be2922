//! The harness of Atoll's scenarios: real nodes on ports of the system's choice, cables between them that
//! can be cut, an upstream that follows a script, and ways to ask all of them.
//!
//! Nothing here unwraps: a scenario returns what went wrong, with the last thing that was seen.

mod wait;
mod answer;
mod cable;
mod upstream;
mod control;
mod collector;
mod draft;
mod town;
mod question;
mod process;
mod redis;
mod python;
mod s3;
mod faults;

pub use answer::{Answer, Heard, Visitor, exchange, raw};
pub use cable::Cable;
pub use collector::{Collector, ExportedSpan};
pub use control::{Control, Published};
pub use draft::Draft;
pub use faults::{Faults, HttpFault};
pub use process::{Process, free_port};
pub use python::python_with;
pub use question::{DnsAnswer, Subnet, ask_over_tcp, ask_over_udp};
pub use redis::{OlderFiles, RedisCluster, RedisOptions, RedisServer};
pub use s3::S3;
pub use town::{Plan, Town};
pub use upstream::{Gate, Reply, Seen, Upstream};
pub use wait::{PATIENCE, eventually};
