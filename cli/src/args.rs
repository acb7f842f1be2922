//! What can be typed.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wire::{Alias, Digest, Grant, IdempotencyKey, NodeName, SiteName};

/// What every command takes stands apart from what it takes by itself.
const GLOBAL: &str = "Global options";

/// A content delivery network that you run yourself.
///
/// Exit codes: 0 done; 1 what you typed is wrong; 2 it failed; 3 accepted, but not everywhere within the time.
#[derive(Debug, Parser)]
#[command(name = "atoll", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(short, long, global = true, value_name = "FILE", env = "ATOLL_CONFIG", help_heading = GLOBAL)]
    pub(crate) config: Option<OsString>,
    /// Sets a value over the file's, such as `network.lease=3s`; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = GLOBAL)]
    pub(crate) set: Vec<String>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "pretty", env = "ATOLL_LOG_FORMAT", help_heading = GLOBAL)]
    pub(crate) log_format: LogFormat,
    /// Which log lines show, such as `info` or `atoll_edge=debug,access=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "ATOLL_LOG", help_heading = GLOBAL)]
    pub(crate) log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs every node of the file in one process; without a file three regions on this machine.
    Up(Up),
    /// Runs the origin.
    Origin(Origin),
    /// Runs one edge.
    Edge {
        /// Its name in the file.
        name: NodeName,
    },
    /// Runs one DNS node.
    Dns {
        /// Its name in the file.
        name: NodeName,
    },
    /// Publishes a folder as a new version of a site.
    Publish(Publish),
    /// Goes back to the version before, everywhere at once.
    Rollback(Rollback),
    /// Lists the versions of a site.
    Versions(Versions),
    /// Purges cached responses, and waits until no edge answers from them.
    Purge(Purge),
    /// Shows nodes, leases, lag and versions.
    Status {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tells why a URL is answered as it is, at each edge.
    Explain(Explain),
    /// Checks a configuration file and names everything that is wrong with it, and with the engines that it names.
    Check {
        /// The file.
        file: PathBuf,
        /// Looks at the file alone, and asks no engine.
        #[arg(long)]
        offline: bool,
    },
    /// Puts the network's part of a configuration file in force.
    Apply(Apply),
    /// Takes the journal to another engine, while no origin runs.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Shows and restores configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Issues, lists and revokes tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tells whether nodes on this machine are ready: exit code 0, else 2.
    Health(Health),
    /// Takes an edge out of service that will not come back: no receipt waits for it any more.
    Drain {
        /// Its name.
        name: NodeName,
    },
    /// Runs the upstream that `atoll up` without a file has: products whose version can be raised, with tags.
    Demo {
        /// Where it listens.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7071")]
        listen: SocketAddr,
    },
    /// Prints completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `atoll up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Publishes this folder as soon as all runs.
    #[arg(long, value_name = "DIR")]
    pub(crate) site: Option<PathBuf>,
}

/// `atoll origin`
#[derive(Debug, Args)]
pub(crate) struct Origin {
    /// Begins a new life of the journal: after a backup of it was restored.
    #[arg(long)]
    pub(crate) new_epoch: bool,
}

/// Whether to wait for every edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Until every edge has it.
    #[default]
    All,
    /// Not at all.
    None,
}

/// `atoll publish`
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The site.
    #[arg(long)]
    pub(crate) site: SiteName,
    /// The alias to move; edges serve `production`.
    #[arg(long, default_value = "production")]
    pub(crate) alias: Alias,
    /// Says what would be sent, and sends nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Whether to wait until every edge serves it; with `none` nobody knows, which is exit code 0.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) wait: Wait,
    /// How long to wait.
    #[arg(long, value_parser = span, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll rollback`
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The site.
    #[arg(long)]
    pub(crate) site: SiteName,
    /// The alias to move.
    #[arg(long, default_value = "production")]
    pub(crate) alias: Alias,
    /// The version to go to, or the beginning of it; without it the one before.
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// How long to wait until every edge serves it.
    #[arg(long, value_parser = span, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll versions`
#[derive(Debug, Args)]
pub(crate) struct Versions {
    /// The site.
    #[arg(long)]
    pub(crate) site: SiteName,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll purge`
#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// A URL: every variant, coding and slice of it. May be repeated.
    #[arg(long = "url", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// A surrogate key. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// The beginning of URLs, with the whole host: `api.example.test/v1/`. May be repeated.
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub(crate) prefixes: Vec<String>,
    /// All responses on a site's hosts. May be repeated.
    #[arg(long = "site", value_name = "SITE")]
    pub(crate) sites: Vec<String>,
    /// Everything of the owner.
    #[arg(long)]
    pub(crate) all: bool,
    /// The owner within which tags, sites and --all are matched.
    #[arg(long, default_value = "default")]
    pub(crate) owner: wire::Owner,
    /// Makes entries stale rather than gone.
    #[arg(long)]
    pub(crate) soft: bool,
    /// Whether to wait for every edge; with `none` a receipt that is still pending is exit code 0, not 3.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) wait: Wait,
    /// How long to wait; by default the bound of a purge plus one second, for a dry run two seconds.
    #[arg(long, value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// Purges once more after so long, an hour at the most: for upstreams whose replicas lag.
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) again_after: Option<Duration>,
    /// A name for this purge: sent again with the same within a day, it purges nothing again and prints the first receipt.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    /// Says what would be purged and how much of it each edge holds, and purges nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints the receipt, or what a dry run found, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll explain`
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The URL.
    pub(crate) url: String,
    /// Asks this edge alone.
    #[arg(long)]
    pub(crate) edge: Option<NodeName>,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll apply`
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Refuses unless the configuration in force has this number.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_number: Option<u64>,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll health`
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// `origin`, `edge/NAME` or `dns/NAME`; without one every node of the file.
    #[arg(value_name = "NODE", env = "ATOLL_NODE", value_delimiter = ',')]
    pub(crate) nodes: Vec<NodeId>,
    /// Asks whether they live, not whether they are ready.
    #[arg(long)]
    pub(crate) live: bool,
    /// Waits until they are, for so long.
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A node of the file, by its role and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeId {
    /// `origin`
    Origin,
    /// `edge/NAME`
    Edge(NodeName),
    /// `dns/NAME`
    Dns(NodeName),
}

impl FromStr for NodeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = |name: &str| name.parse().map_err(|error| format!("{error}"));
        match text.split_once('/') {
            None if text == "origin" => Ok(Self::Origin),
            Some(("edge", edge)) => name(edge).map(Self::Edge),
            Some(("dns", dns)) => name(dns).map(Self::Dns),
            _ => Err("expected `origin`, `edge/NAME` or `dns/NAME`".to_owned()),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("origin"),
            Self::Edge(name) => write!(f, "edge/{name}"),
            Self::Dns(name) => write!(f, "dns/{name}"),
        }
    }
}

/// `atoll journal`
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Writes the journal of the configuration's origin into a file.
    Export {
        /// The file.
        file: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads an exported file into the journal of the configuration's origin, which must be empty. A new epoch begins.
    Import {
        /// The file.
        file: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `atoll config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints every value of the file and where it came from; secrets are masked.
    Show {
        /// Prints the configuration in force at the origin in place of the file's.
        #[arg(long)]
        in_force: bool,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lists the configurations that there were.
    History {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Puts an earlier configuration in force again.
    Restore {
        /// Its number.
        number: u64,
    },
}

/// `atoll token`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Issues a token and prints its secret, once.
    Create {
        /// What its bearer may do: publish:SITE, purge:OWNER, config, follow:ROLE/NAME, read, admin.
        #[arg(long, value_delimiter = ',', required = true)]
        can: Vec<Grant>,
        /// What people call it.
        #[arg(long, default_value = "")]
        name: String,
        /// How many scopes it may purge per second; without it `origin.purge_rate` counts.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        purge_rate: Option<u64>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lists the tokens in force.
    List {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revokes a token, at once.
    Revoke {
        /// Its id.
        id: String,
        /// Also where followers rely on it, which are fenced then.
        #[arg(long)]
        force: bool,
    },
}

/// Tells whether `version` is what somebody typed the beginning of.
pub(crate) fn is_meant(version: &Digest, typed: &str) -> bool {
    typed.len() >= 4 && version.to_string().starts_with(typed)
}

/// Reads a span of time.
fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a span of time such as `5s` or `250ms`".to_owned())
}
