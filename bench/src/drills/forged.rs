//! Receipts that no origin wrote: what a checker is fed with to see whether it can fail.

use anyhow::Result;
use serde_json::{Value, json};
use wire::{FollowerState, Receipt, ReceiptState};

/// Forges a receipt.
pub(crate) fn receipt(seq: u64, state: ReceiptState, rows: &[(&str, FollowerState)]) -> Result<Receipt> {
    let row =
        |(name, state): &(&str, FollowerState)| json!({ "name": name, "region": "here", "state": state, "after_ms": null, "since": null });
    let followers: Vec<Value> = rows.iter().map(row).collect();
    let position = format!("{:016x}.{seq}.{:032x}", 0, 0);
    Ok(serde_json::from_value(
        json!({ "position": position, "seq": seq, "state": state, "may_serve": [], "followers": followers, "notes": [] }),
    )?)
}
