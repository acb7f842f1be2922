//! What Atoll promises, told as situations and outcomes over real sockets. Each scenario has a town of its own.

mod publishing;
mod purging;
mod second_tier;
mod buckets;
mod operations;
mod origins;
mod shared_journal;
mod receipts;
mod positions;
mod counting;
mod clients;
mod conformance;
mod following;
mod outage;
mod steering;
mod security;
mod processes;
mod commands;
mod architecture;
mod dependencies;
mod door;
